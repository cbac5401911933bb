"""Keypoint R-CNN by the commands: training, evaluation, and pictures of what it finds."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from det_coco import load_split, synthetic_dataset
from det_models import load
from testing.command_line import NETWORK, SIZES, STEPS, call, read

RECIPE = ["--recipe", "keypoint_rcnn_r50_fpn"]
SMALL = [
    *NETWORK.split(),
    "--backbone.weights",
    "none",
    *SIZES.split(),
    "--data.min-keypoints",
    "1",
    "--data.workers",
    "0",
]
HEAD = "--detector.keypoints.num-keypoints 5 --detector.keypoints.convs 1 --detector.keypoints.channels 16"
KEYPOINTS = HEAD.split()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_dataset(tmp_path_factory.mktemp("data"), train_images=8, val_images=4)


def test_train_and_evaluate(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    args = ["--data", data, "--output", run, *RECIPE, *SMALL, *KEYPOINTS, *STEPS]
    assert call("mask_rcnn", "train", *args) == 0
    assert set(read(run / "results.json")) >= {"bbox", "keypoints"}
    assert call("mask_rcnn", "eval", "--weights", run, "--data", data, "--output", tmp_path / "eval") == 0
    assert read(tmp_path / "eval" / "results.json")["keypoints"] == read(run / "results.json")["keypoints"]
    detector = load(run / "checkpoints" / "last.pt")
    picture = sorted((data / "val").glob("*"))[0] if (data / "val").is_dir() else sorted(data.rglob("*.png"))[0]
    found = detector.predict(picture)
    assert found.keypoints is not None
    assert found.keypoints.shape == (len(found), 5, 3)
    assert np.isfinite(found.keypoints).all()
    assert len(found.to_coco(1)[0]["keypoints"]) == 15
    limbs = ((0, 1), (0, 2), (0, 3), (0, 4))  # of the data, which are not COCO's
    assert found.limbs == load_split(data, "val", keypoints=True).skeleton.limbs == limbs
    joined = np.asarray(found.draw())
    points = np.asarray(replace(found, limbs=()).draw())
    assert len(found) > 0
    assert (joined != points).any()
