import filecmp
import json
import logging
import os
import shutil

import numpy as np
import pytest

from det_coco import CocoIndex, DataError, cache_folder, check_same_categories, load_image, synthetic_dataset
from det_coco._scenes import CATEGORIES, draw_scene, rasterize
from det_coco.mask_codec import instance_bitmap

SMALL = {"train_images": 6, "val_images": 6, "size": 80}


def test_has_every_case(index, val):
    check_same_categories(index, val)
    assert index.category_ids == (1, 2, 4, 7, 8, 11)
    for split in (index, val):
        assert split.crowd.sum() == 1
        assert (np.diff(split.image_instances) == 0).any()
        assert (split.heights > split.widths).any()
        assert (split.heights < split.widths).any()
        run_length = np.diff(split.masks.instance_runs) > 0
        assert run_length[~split.crowd].any()
        assert not run_length.all()
    assert set(index.labels.tolist()) == set(range(6))
    assert (np.sqrt(index.areas) < 10).any()


def test_annotations_are_right(index):
    """Boxes, areas and pictures agree with the masks; masks of different objects do not meet."""
    for position in range(len(index)):
        height, width = int(index.heights[position]), int(index.widths[position])
        load_image(index.path(position), size=(height, width))
        rows = index.instances(position)
        masks = [instance_bitmap(index, n, height, width).astype(bool) for n in range(rows.start, rows.stop)]
        for n, mask in zip(range(rows.start, rows.stop), masks, strict=True):
            assert mask.sum() == index.areas[n]
            y, x = np.nonzero(mask)
            tight = [x.min(), y.min(), x.max() + 1, y.max() + 1]
            np.testing.assert_allclose(index.boxes[n], tight, atol=2)
        # Rounding to hundredths may share a pixel on a common border.
        overlap = np.sum([m.astype(int) for m in masks], axis=0) if masks else np.zeros((1, 1))
        assert (overlap > 1).sum() <= 2


def test_same_arguments_give_the_same_files(tmp_path):
    first = synthetic_dataset(tmp_path / "a", **SMALL)
    second = synthetic_dataset(tmp_path / "b", **SMALL)
    files = sorted(p.relative_to(first) for p in first.rglob("*.*"))
    assert len(files) == 6 + 6 + 4 + 1
    assert filecmp.cmpfiles(first, second, [str(f) for f in files], shallow=False) == ([str(f) for f in files], [], [])
    other = synthetic_dataset(tmp_path / "c", **SMALL, seed=1)
    assert not filecmp.cmp(first / "annotations/instances_val.json", other / "annotations/instances_val.json", False)
    splits = [json.loads((first / "annotations" / f"instances_{s}.json").read_text()) for s in ("train", "val")]
    assert splits[0]["annotations"] != splits[1]["annotations"]


def test_reused_when_complete_and_rebuilt_when_damaged(tmp_path, caplog):
    root = synthetic_dataset(tmp_path / "a", **SMALL)
    file = root / "train" / "000002.jpg"
    before = file.stat().st_mtime_ns, file.read_bytes()
    synthetic_dataset(root, **SMALL)
    assert file.stat().st_mtime_ns == before[0]
    for damage in (file.unlink, lambda: file.write_bytes(b"x"), (root / "annotations/instances_val.json").unlink):
        damage()
        with caplog.at_level(logging.WARNING, "det_coco"):
            synthetic_dataset(root, **SMALL)
        assert "damaged or outdated" in caplog.text
        caplog.clear()
        assert file.read_bytes() == before[1]
        CocoIndex.load(root / "annotations/instances_val.json", root / "val")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_another_version_is_rebuilt(tmp_path):
    root = synthetic_dataset(tmp_path / "a", **SMALL)
    marker = root / "synthetic.json"
    marker.write_text(marker.read_text().replace('"version": 2', '"version": 0'))
    synthetic_dataset(root, **SMALL)
    assert '"version": 2' in marker.read_text()


def test_interrupted_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_args: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("det_coco.synthetic.draw_scene", interrupt)
    with pytest.raises(KeyboardInterrupt):
        synthetic_dataset(tmp_path / "a", **SMALL)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_cleared(tmp_path):
    old, at_work = tmp_path / ".a-old", tmp_path / ".a-new"
    for folder in (old, at_work):
        (folder / "train").mkdir(parents=True)
    for path in (old, old / "train"):
        os.utime(path, (0, 0))
    synthetic_dataset(tmp_path / "a", **SMALL)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a-new", "a"]


def test_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DET_CACHE", str(tmp_path / "cache"))
    assert cache_folder() == tmp_path / "cache"
    root = synthetic_dataset(**SMALL)
    assert root.parent == tmp_path / "cache"
    assert synthetic_dataset(**SMALL) == root
    assert synthetic_dataset(**{**SMALL, "size": 96}) != root
    monkeypatch.delenv("DET_CACHE")
    assert cache_folder().name == "det"


def test_someone_elses_folder_is_left_alone(tmp_path):
    (tmp_path / "precious.txt").write_text("x")
    with pytest.raises(DataError, match="is not empty and holds no synthetic data set"):
        synthetic_dataset(tmp_path, **SMALL)
    assert (tmp_path / "precious.txt").exists()


def test_unwritable_place(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match=r"cannot be written .* Set DET_CACHE"):
        synthetic_dataset(tmp_path / "file" / "a", **SMALL)


@pytest.mark.parametrize("options", [{"train_images": 0}, {"val_images": 0}, {"size": 10}])
def test_wrong_arguments(tmp_path, options):
    with pytest.raises(ValueError, match="at least"):
        synthetic_dataset(tmp_path / "a", **options)
    shutil.rmtree(tmp_path / "a", ignore_errors=True)


def test_rings_have_holes():
    for seed in range(40):
        scene = draw_scene(96, 120, np.random.default_rng(seed), objects=6)
        for thing in scene.things:
            if CATEGORIES[thing.category] == "ring" and thing.whole:
                middle = thing.polygon.mean(axis=0).astype(int)
                assert not rasterize(thing.polygon, 96, 120)[middle[1], middle[0]]
                return
    pytest.fail("no ring was drawn")
