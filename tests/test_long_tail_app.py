"""Losses for long tails as options of a training: the classes' numbers come from the data."""

import json

import pytest

from det_coco import load_split, synthetic_dataset
from testing.command_line import call, train

OPTIONS = {
    "seesaw": "--detector.box.classification.kind seesaw --detector.box.box-loss giou --data.repeat-threshold 0.9",
    "federated": "--detector.box.classification.kind sigmoid --detector.box.classification.federated 3 "
    "--detector.box.nms gaussian --detector.rpn.box-loss diou",
}


@pytest.mark.parametrize(("name", "app"), [("seesaw", "mask_rcnn"), ("federated", "cascade_rcnn")])
def test_a_training_counts_the_classes_and_its_run_is_evaluated(name, app, tmp_path, capsys):
    data = synthetic_dataset(tmp_path / "scenes", train_images=10, val_images=2, size=96)
    assert train(app, data, tmp_path / "run", *OPTIONS[name].split()) == 0
    recipe = json.loads((tmp_path / "run" / "config.json").read_text())["recipe"]
    index = load_split(data, "train")
    labels = index.labels[~index.crowd].tolist()
    counts = [labels.count(label) for label in range(index.num_classes)]
    assert recipe["detector"]["box"]["classification"]["object_counts"] == counts
    assert call(app, "eval", "--weights", tmp_path / "run", "--data", data, "--output", tmp_path / "eval") == 0


def test_a_wrong_share_is_named(capsys):
    assert call("mask_rcnn", "train", "--data.repeat-threshold", "2") == 2
    assert "Option --data.repeat-threshold must be a share between 0 and 1" in capsys.readouterr().err
