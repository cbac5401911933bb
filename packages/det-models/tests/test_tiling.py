"""Big pictures in tiles: what is found there is what a look at each tile finds, in pixels of the picture."""

import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from det_coco.rle import decode_rle
from det_models import Detections, OptionError, Predictor, Tiling
from det_models.changes import with_limits
from det_models.images import Loaded
from det_models.tiling import in_tiles
from det_ops import encode_rle
from testing.trained import NAMES, random_network, small_model

FAMILIES = {
    "mask_rcnn": ("ours", {}),
    "faster_rcnn": ("ours", {"mask": False}),
    "cascade_rcnn": ("ours", {"cascade": True}),
    "keypoint_rcnn": ("ours", {"keypoints": True}),
    "legacy": ("maskrcnn-benchmark", {}),
    "torchvision": ("torchvision", {}),
    "yolact": ("yolact", {}),
    "yolact++": ("yolact++", {}),
}


def picture(height: int = 100, width: int = 150, seed: int = 0) -> np.ndarray:
    """A smooth random picture, uint8 [H, W, 3]."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize((width, height)))


def predictor(family: str = "mask_rcnn", **options: object) -> Predictor:
    system, kind = FAMILIES[family]
    model = with_limits(small_model(system, **kind), max_detections=8 if family == "keypoint_rcnn" else None)
    return Predictor(random_network(model), model, NAMES, device="cpu", **options)


def same(one: Detections, other: Detections) -> None:
    for name in ("boxes", "scores", "labels", "category_ids", "mask_scores"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.rle == other.rle


@pytest.mark.parametrize("family", FAMILIES)
def test_every_detection_is_that_of_a_tile(family):
    """Boxes, scores, masks, keypoints and whatever else, moved to where the tile is in the picture."""
    detector, pixels = predictor(family), picture()
    tiling = Tiling(size=80, threshold=1)  # nothing is one with another but what is in it
    found = detector.predict(pixels, tile=tiling)
    assert found.size == (100, 150)
    assert (found.image == pixels).all()
    assert (np.diff(found.scores) <= 0).all()
    tiles = {}
    for x, y, height, width in tiling.windows(100, 150):
        part = detector.predict(pixels[y : y + height, x : x + width])
        for row in range(len(part)):
            tiles[part.scores[row], *(part.boxes[row] + np.float32([x, y, x, y]))] = (x, y, part[row])
    assert len(found) > 10
    origins = set()
    for one in found:
        x, y, part = tiles[one.scores[0], *one.boxes[0]]
        origins.add((x, y, part.size))
        assert one.names == part.names
        assert one.extra.keys() == part.extra.keys()
        if part.masks is not None:
            mask = np.zeros((100, 150), dtype=bool)
            mask[y : y + part.size[0], x : x + part.size[1]] = part.masks[0]
            np.testing.assert_array_equal(one.masks[0], mask)
        if part.mask_scores is not None:
            assert one.mask_scores == part.mask_scores
        if part.keypoints is not None:
            np.testing.assert_allclose(one.keypoints, part.keypoints + np.array([x, y, 0]), rtol=1e-6)
            np.testing.assert_array_equal(one.extra["keypoint_scores"], part.extra["keypoint_scores"])
    assert len(origins) == 7  # six tiles, and the whole


def test_a_picture_no_larger_than_a_tile_is_looked_at_as_ever():
    detector, pixels = predictor(), picture(48, 72)
    for tile in (72, (48, 72), 1000, Tiling(size=72, merge="join")):
        same(detector.predict(pixels, tile=tile), detector.predict(pixels))


def test_several_pictures_in_batches_of_tiles(tmp_path):
    """A list, a folder, a generator: each of any size, in its order, whatever batches its tiles are in."""
    detector = predictor()
    images = [picture(seed=0), picture(60, 60, seed=1), picture(150, 100, seed=2)]
    alone = [detector.predict(image, tile=64, overlap=0.25) for image in images]
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    several = [images, tmp_path, iter(images), (tmp_path / f"{number}.png" for number in range(3))]
    for given in several:
        found = detector.predict(given, tile=64, overlap=0.25)
        for one, other in zip(found, alone, strict=True):
            same(one, other)
    batched = detector.predict(images, tile=64, overlap=0.25, batch_size=4)
    for one, other in zip(batched, alone, strict=True):
        assert one.size == other.size
        np.testing.assert_allclose(one.scores[:5], other.scores[:5], atol=1e-4)
    (first, *_) = detector.predict(tmp_path, tile=64)
    assert first.source == str(tmp_path / "0.png")


def test_limits_and_scores_hold_for_the_picture():
    detector, pixels = predictor(max_detections=7), picture()
    every = predictor().predict(pixels, tile=64)
    few = detector.predict(pixels, tile=64)
    assert len(few) == 7 < len(every)
    assert few.scores[0] == every.scores[0]
    above = predictor().predict(pixels, tile=64, min_score=float(every.scores[9]))
    assert (above.scores >= every.scores[9]).all()
    of_one = predictor(classes=["square"]).predict(pixels, tile=64)
    assert set(of_one.names) == {"square"}


def rectangles(tiles: Iterable[Loaded], *, least: int = 1) -> Iterator[Detections]:
    """A detector that finds each grey value but black once, with a score that grows with what is seen of it."""
    for tile in tiles:
        grey = tile.pixels[..., 0]
        values = [v for v in np.unique(grey) if v and (grey == v).sum() >= least]
        masks = np.array([grey == v for v in values], dtype=np.uint8).reshape(-1, *grey.shape)
        rows, columns = [[np.flatnonzero(m.any(axis)) for m in masks] for axis in (1, 0)]
        boxes = [(c[0], r[0], c[-1] + 1, r[-1] + 1) for r, c in zip(rows, columns, strict=True)]
        scores = masks.sum((1, 2)) / (1 << 20)
        order = np.argsort(-scores)
        yield Detections(
            boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4)[order],
            scores=scores.astype(np.float32)[order],
            labels=np.zeros(len(values), dtype=np.int64),
            categories={1: "thing"},
            category_ids=np.ones(len(values), dtype=np.int64),
            size=tile.size,
            rle=[encode_rle(mask) for mask in torch.from_numpy(masks[order])] if len(order) else [],
            image=tile.pixels,
        )


def objects(*boxes: tuple[int, int, int, int], size: tuple[int, int] = (200, 300)) -> np.ndarray:
    """A black picture with a rectangle of a grey of its own for each box."""
    pixels = np.zeros((*size, 3), dtype=np.uint8)
    for grey, (x1, y1, x2, y2) in enumerate(boxes, 1):
        pixels[y1:y2, x1:x2] = grey
    return pixels


@pytest.mark.parametrize("merge", ["nms", "join"])
def test_objects_of_the_size_of_the_overlap_are_found_once_and_whole(merge):
    boxes = [(x, y, x + 20, y + 20) for y in range(0, 180, 25) for x in range(0, 280, 25)]
    (found,) = in_tiles(rectangles, [objects(*boxes)], Tiling(size=100, overlap=0.2, whole=False, merge=merge))
    assert sorted(map(tuple, found.boxes.astype(int).tolist())) == sorted(boxes)
    for box, mask in zip(found.boxes.astype(int), found.masks, strict=True):
        assert mask.sum() == 400
        assert mask[box[1] : box[3], box[0] : box[2]].all()


def test_an_object_larger_than_a_tile_is_joined_or_seen_in_the_whole():
    """Without either, its parts stay; the threshold of overlap has to be below the share that tiles have in common."""
    pixels, box = objects((10, 20, 290, 150)), [10, 20, 290, 150]
    parts = Tiling(size=100, overlap=0.3, whole=False)
    (found,) = in_tiles(rectangles, [pixels], parts)
    assert len(found) > 3
    (found,) = in_tiles(rectangles, [pixels], Tiling(size=100, overlap=0.3))
    assert found.boxes.tolist() == [box]
    joining = Tiling(size=100, overlap=0.3, whole=False, merge="join", threshold=0.1)
    (found,) = in_tiles(rectangles, [objects((10, 20, 130, 60))], joining)
    assert found.boxes.tolist() == [[10, 20, 130, 60]]
    assert decode_rle(found.rle[0]).sum() == 120 * 40
    assert decode_rle(found.rle[0])[20:60, 10:130].all()


def test_a_small_object_in_front_of_a_large_one_needs_iou():
    pixels = objects((10, 10, 90, 90), (30, 30, 60, 60))
    for match, count in (("ios", 1), ("iou", 2)):
        (found,) = in_tiles(rectangles, [pixels], Tiling(size=(200, 100), overlap=0, match=match))
        assert len(found) == count


def test_memory_is_that_of_the_picture_and_of_some_tiles():
    """Two hundred masks as bitmaps of the picture would be 7 GB."""
    boxes = [(x, y, x + 60, y + 60) for y in range(50, 6000, 600) for x in range(50, 6000, 600)]
    pixels = objects(*boxes, size=(6000, 6000))
    tracemalloc.start()
    (found,) = in_tiles(rectangles, [pixels], Tiling(size=500, whole=False))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found) == len(boxes)
    assert peak < 1.5 * pixels.nbytes  # the picture is copied as any that is handed over


def test_a_picture_that_cannot_be_read_ends_it_after_those_before(tmp_path: Path):
    for number in range(2):
        Image.fromarray(picture(seed=number)).save(tmp_path / f"{number}.png")
    (tmp_path / "2.png").write_bytes(b"no picture")
    stream = predictor().predict(tmp_path, tile=64, batch_size=3)
    assert [Path(next(stream).source).name for _ in range(2)] == ["0.png", "1.png"]
    with pytest.raises(ValueError, match=r"2\.png"):
        next(stream)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tile": 0}, "tile must be at least 1, got 0"),
        ({"tile": (64, -1)}, "tile must be at least 1, got -1"),
        ({"tile": 64.5}, "tile must be a whole number, got 64.5"),
        ({"tile": "64"}, "tile must be a whole number, got '64'"),
        ({"tile": (1, 2, 3)}, "tile must be one length or a height and a width"),
        ({"tile": 64, "overlap": 1}, "overlap must be a share of a tile, from 0 to below 1, got 1"),
        ({"tile": 64, "overlap": -0.1}, "overlap must be a share"),
        ({"tile": 64, "features": True}, "features cannot be had together with tile"),
    ],
)
def test_what_tiles_cannot_be(options, says):
    with pytest.raises(OptionError, match=says):
        predictor("faster_rcnn").predict(picture(), **options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"merge": "wbf"}, "merge must be nms or join, got 'wbf'"),
        ({"match": "giou"}, "match must be ios or iou, got 'giou'"),
        ({"threshold": 0}, "threshold must be above 0"),
    ],
)
def test_what_a_tiling_cannot_be(options, says):
    with pytest.raises(OptionError, match=says):
        Tiling(size=64, **options)
