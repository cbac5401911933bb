import json
import logging
import multiprocessing
import os
import signal
from itertools import islice

import numpy as np
import pytest
import torch

from det_coco import (
    Augmentation,
    BatchShape,
    CocoIndex,
    DataError,
    Resize,
    default_buckets,
    eval_loader,
    limits,
    load_split,
    train_loader,
)  # fmt: skip
from det_coco.mask_codec import instance_bitmap
from det_coco.selection import select_instances
from testing.comparing import assert_same

RESIZE = Resize(shortest=(64, 80), longest=112)
AUGMENTATION = Augmentation(resize=RESIZE)
SHAPE = BatchShape(buckets=default_buckets(RESIZE), max_instances=12, max_edges=512, max_polygons=24)


def train(index, n, **options):
    loader = train_loader(index, **{"augmentation": AUGMENTATION, "shape": SHAPE, "batch_size": 2, **options})
    return list(islice(loader, n))


def test_shapes_and_types_are_the_contract(index):
    for batch in train(index, 6, batch_size=3):
        height, width = batch["images"].shape[2:]
        assert (height, width) in SHAPE.buckets
        expected = {
            "images": ((3, 3, height, width), torch.uint8),
            "image_sizes": ((3, 2), torch.int32),
            "scales": ((3, 2), torch.float32),
            "image_ids": ((3,), torch.int64),
            "boxes": ((3, 12, 4), torch.float32),
            "labels": ((3, 12), torch.int64),
            "valid": ((3, 12), torch.bool),
            "crowd": ((3, 12), torch.bool),
            "mask_edges": ((3, 512, 4), torch.float32),
            "mask_polygons": ((3, 25), torch.int32),
            "mask_instances": ((3, 13), torch.int32),
        }
        assert {name: (tuple(t.shape), t.dtype) for name, t in batch.items()} == expected
        assert all(t.is_contiguous() for t in batch.values())


def test_content_of_batches(index):
    seen_empty = seen_crowd = False
    for batch in train(index, 24):
        for b, image_id in enumerate(batch["image_ids"].tolist()):
            rows = index.instances(index.position(image_id))
            h, w = batch["image_sizes"][b].tolist()
            original = np.array(index.image_size(image_id))
            np.testing.assert_allclose(batch["scales"][b], np.array([h, w]) / original, rtol=1e-6)
            assert not batch["images"][b, :, h:].any()
            assert not batch["images"][b, :, :, w:].any()
            valid, crowd = batch["valid"][b], batch["crowd"][b]
            count = int(valid.sum())
            assert count == rows.stop - rows.start
            assert valid[:count].all()
            # Crowd regions come last and are valid too.
            assert int(crowd.sum()) == index.crowd[rows].sum()
            assert crowd[count - int(crowd.sum()) : count].all()
            assert sorted(batch["labels"][b, :count].tolist()) == sorted(index.labels[rows].tolist())
            boxes = batch["boxes"][b, :count]
            assert (boxes[:, :2] >= -1e-4).all()
            assert (boxes[:, 2] <= w + 1e-3).all()
            assert (boxes[:, 3] <= h + 1e-3).all()
            assert (boxes[:, 2:] > boxes[:, :2]).all()
            assert not batch["boxes"][b, count:].any()
            polygons, instances = batch["mask_polygons"][b], batch["mask_instances"][b]
            assert polygons[0] == instances[0] == 0
            assert (polygons.diff() >= 0).all()
            assert (instances.diff() >= 0).all()
            assert not batch["mask_edges"][b, int(polygons[-1]) :].any()
            assert int(instances[-1]) == int((polygons.diff() > 0).sum())
            for m in range(count):
                first, last = polygons[instances[m]], polygons[instances[m + 1]]
                edges = batch["mask_edges"][b, first:last]
                if crowd[m]:
                    assert len(edges) == 0
                    continue
                # The outline fills its box.
                low = edges.reshape(-1, 2).min(0).values
                high = edges.reshape(-1, 2).max(0).values
                np.testing.assert_allclose(
                    torch.cat((low, high)), boxes[m], atol=1e-2 + 0.02 * max(h, w) / original.max()
                )
            seen_empty |= count == 0
            seen_crowd |= bool(crowd.any())
    assert seen_empty
    assert seen_crowd


def test_pixels_and_boxes_are_mirrored_together(index):
    plain = {
        b["image_ids"].item(): b
        for b in eval_loader(index, resize=RESIZE, shape=SHAPE, batch_size=1, ground_truth=True)
    }
    mirrored = 0
    augmentation = Augmentation(resize=Resize(shortest=(80,), longest=112), flip=1.0)
    for batch in train(index, 10, augmentation=augmentation, batch_size=1):
        other = plain[batch["image_ids"].item()]
        h, w = batch["image_sizes"][0].tolist()
        assert torch.equal(batch["images"][0, :, :h, :w].flip(-1), other["images"][0, :, :h, :w])
        n = int(batch["valid"].sum())
        x1, y1, x2, y2 = batch["boxes"][0, :n].unbind(-1)
        torch.testing.assert_close(torch.stack((w - x2, y1, w - x1, y2), -1), other["boxes"][0, :n])
        mirrored += n
    assert mirrored


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_loader_continues(index, workers):
    whole = train(index, 9, seed=5)
    assert_same(train(index, 4, seed=5, start_batch=5, workers=workers), whole[5:])


def test_processes_see_their_part(index):
    whole = train(index, 5, batch_size=4)
    parts = [train(index, 5, rank=rank, world_size=2) for rank in (0, 1)]
    for batch, first, second in zip(whole, *parts, strict=True):
        assert torch.equal(batch["image_ids"], torch.cat((first["image_ids"], second["image_ids"])))
        assert torch.equal(batch["boxes"], torch.cat((first["boxes"], second["boxes"])))


def test_augmentation_differs_between_epochs(index):
    batches = train(index, 48, batch_size=1)
    sizes = {}
    for batch in batches:
        sizes.setdefault(batch["image_ids"].item(), []).append(batch["boxes"])
    assert any(not torch.equal(*pair) for pair in sizes.values())


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_workers_leave_a_stop_to_the_main_process(index):
    """A launcher's SIGTERM reaches the whole process group; the step that it interrupts may need further batches."""
    others = set(multiprocessing.active_children())
    batches = iter(train_loader(index, augmentation=AUGMENTATION, shape=SHAPE, batch_size=2, workers=1))
    begin = [next(batches)]
    (worker,) = set(multiprocessing.active_children()) - others
    assert os.getpgid(worker.pid) != os.getpgrp()
    os.kill(worker.pid, signal.SIGINT)
    assert_same([*begin, *islice(batches, 11)], train(index, 12))
    batches.close()
    worker.join(600)
    assert not worker.is_alive()


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_a_worker_that_was_ended_says_what_to_do(index):
    """As the kernel ends one where memory is full."""
    others = set(multiprocessing.active_children())
    batches = iter(train_loader(index, augmentation=AUGMENTATION, shape=SHAPE, batch_size=2, workers=1))
    next(batches)
    (worker,) = set(multiprocessing.active_children()) - others
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch's raises wherever this process is, also after the test
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(DataError, match=r"was ended .* where memory, .*, is full: take fewer workers"):
        list(islice(batches, 30))


def test_spawned_workers(index):
    assert_same(train(index, 2, workers=1, start_method="spawn"), train(index, 2))


def test_bitmaps(index):
    shape = BatchShape(buckets=SHAPE.buckets, masks="bitmaps", max_instances=8)
    resize = Resize(shortest=(77,), longest=97)
    for batch in islice(eval_loader(index, resize=resize, shape=shape, batch_size=2, ground_truth=True), 3):
        assert batch["mask_bitmaps"].shape == (2, 8, *batch["images"].shape[2:])
        assert "mask_edges" not in batch
        position = index.position(int(batch["image_ids"][0]))
        row = index.instances(position).start
        expected = instance_bitmap(index, row, *index.image_size(int(batch["image_ids"][0])))
        assert abs(int(batch["mask_bitmaps"][0, 0].sum()) - int(expected.sum())) <= 0.1 * expected.sum()


def test_box_detectors_need_no_masks(content, write):
    for annotation in content["annotations"]:
        del annotation["segmentation"]
    index = CocoIndex.load(*write(content))
    with pytest.raises(DataError, match="has no instance masks"):
        train(index, 1)
    shape = BatchShape(buckets=SHAPE.buckets, masks="none", max_instances=4)
    (batch,) = train(index, 1, shape=shape)
    assert not [name for name in batch if name.startswith("mask")]


@pytest.mark.parametrize(
    ("limit", "what"),
    [({"max_instances": 3}, "instances"), ({"max_edges": 40}, "mask edges"), ({"max_polygons": 3}, "mask polygons")],
)
def test_excess_is_an_error_or_counted(index, caplog, limit, what):
    options = {"buckets": SHAPE.buckets, **limit}
    (option,) = limit
    message = (
        rf"Image \d+ \(0000\d\d.jpg\) of .* has \d+ {what}, more than the {limit[option]} that {option} "
        r"allows; so do \d+ other images. Raise"
    )
    with pytest.raises(DataError, match=message):
        train(index, 1, shape=BatchShape(**options))
    with caplog.at_level(logging.WARNING, "det_coco"):
        loader = train_loader(
            index, augmentation=AUGMENTATION, shape=BatchShape(**options, drop_excess=True), batch_size=1
        )
    (record,) = caplog.records
    kept = loader.dataset.selection
    dropped = index.num_instances - len(kept.rows)
    assert f"{dropped} objects in " in record.getMessage()
    assert dropped > 0
    list(islice(loader, 24))
    # The small ones go first.
    for position in range(len(index)):
        rows = index.instances(position)
        used = set(kept.of(position).tolist())
        gone = [n for n in range(rows.start, rows.stop) if n not in used and not index.crowd[n]]
        if limit.get("max_instances") and gone and used:
            assert max(index.areas[gone]) <= min(index.areas[n] for n in used if not index.crowd[n])


def test_measured_limits_are_just_enough(index):
    most = limits(index)
    fits = BatchShape(max_instances=most.max_instances, max_edges=most.max_edges, max_polygons=most.max_polygons)
    assert len(select_instances(index, fits).rows) == index.num_instances
    for name in ("max_instances", "max_edges", "max_polygons"):
        values = {n: getattr(most, n) for n in ("max_instances", "max_edges", "max_polygons")}
        values[name] -= 1
        with pytest.raises(DataError, match=name):
            select_instances(index, BatchShape(**values))


def test_empty_images_stay_unless_filtered(index):
    def ids(**options):
        loader = train_loader(index, augmentation=AUGMENTATION, shape=SHAPE, batch_size=1, **options)
        return loader.num_images, {b["image_ids"].item() for b in islice(loader, loader.num_images)}

    empty = {int(i) for i, n in zip(index.image_ids, np.diff(index.image_instances), strict=True) if n == 0}
    assert empty
    assert ids() == (24, set(index.image_ids.tolist()))
    assert ids(filter_empty=True) == (24 - len(empty), set(index.image_ids.tolist()) - empty)


def test_legacy_coordinates_differ_only_in_the_mirror(index):
    modern = eval_loader(index, resize=RESIZE, shape=SHAPE, batch_size=1, ground_truth=True)
    legacy = eval_loader(index, resize=RESIZE, shape=SHAPE, batch_size=1, ground_truth=True, legacy=True)
    for a, b in islice(zip(modern, legacy, strict=True), 5):
        n = int(a["valid"].sum())
        torch.testing.assert_close(a["boxes"][0, :n], b["boxes"][0, :n])


@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_pads_and_shards(val, world):
    ids = []
    for rank in range(world):
        loader = eval_loader(val, resize=RESIZE, shape=SHAPE, batch_size=3, rank=rank, world_size=world)
        batches = list(loader)
        assert len(batches) == len(loader)
        for batch in batches:
            assert set(batch) == {"images", "image_sizes", "scales", "image_ids"}
            assert len(batch["images"]) == 3
            padding = batch["image_ids"] < 0
            assert not batch["images"][padding].any()
            assert (batch["image_sizes"][padding] > 0).all()
            ids += batch["image_ids"][~padding].tolist()
    assert sorted(ids) == val.image_ids.tolist()


def test_evaluation_again_with_workers(val):
    loader = eval_loader(val, resize=RESIZE, shape=SHAPE, batch_size=3, workers=1)
    first = list(loader)
    assert_same(list(loader), first)
    assert_same(first, list(eval_loader(val, resize=RESIZE, shape=SHAPE, batch_size=3)))


def test_limited_evaluation(val):
    batches = list(eval_loader(val, resize=RESIZE, shape=SHAPE, batch_size=2, limit=3))
    ids = torch.cat([b["image_ids"] for b in batches])
    assert sorted(ids[ids >= 0].tolist()) == val.image_ids[:3].tolist()


def test_training_loader_has_no_length(index):
    loader = train_loader(index, augmentation=AUGMENTATION, shape=SHAPE, batch_size=4)
    assert loader.batches_per_epoch == 6
    with pytest.raises(TypeError, match="endless"):
        len(loader)


@pytest.mark.parametrize("workers", [0, 1])
def test_data_errors_come_through_workers_as_they_are(content, write, workers):
    file, folder = write(content)
    index = CocoIndex.load(file, folder)
    data = (folder / "a.png").read_bytes()
    (folder / "a.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"^The image .*a.png cannot be read: .* again\.$"):
        train(index, 4, workers=workers)


def test_size_mismatch_stops_training(content, write):
    file, folder = write(content)
    content["images"][0]["width"] += 1
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"b.png is 30 x 40 pixels .* but the annotation file says 31 x 40"):
        train(CocoIndex.load(file, folder), 4)


@pytest.mark.parametrize(
    "options",
    [{"buckets": ()}, {"buckets": ((0, 5),)}, {"masks": "rle"}, {"max_instances": 0}, {"max_edges": 0}],
)
def test_wrong_shapes(options):
    with pytest.raises(ValueError, match="must be"):
        BatchShape(**options)


def test_photographs(coco_mini):
    index = load_split(coco_mini, "train2017")
    resize = Resize(shortest=(320, 400), longest=640)
    loader = train_loader(
        index, augmentation=Augmentation(resize=resize), shape=BatchShape(buckets=default_buckets(resize)), batch_size=2
    )
    for batch in islice(loader, 8):
        assert batch["valid"].any()
        h, w = batch["image_sizes"].unbind(-1)
        assert bool((h > w).all()) or bool((h <= w).all())
