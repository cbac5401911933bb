"""What `--data` and the options beside it take, and what is done with data without truth or with fewer classes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from apps.common.printing import say
from testing.command_line import call, read, small, train

FAST = ("--solver.steps", 2, "--pictures", 0, "--data.workers", 0)


@pytest.fixture
def farm(shapes: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the small data set, whose annotation files may be changed and go elsewhere."""

    def farm(
        places: dict[str, str],
        pictures: dict[str, str],
        change: Callable[[dict[str, Any]], None] = lambda content: None,
    ) -> Path:
        root = tmp_path / "farm"
        for split, place in places.items():
            content = read(shapes / "annotations" / f"instances_{split}.json")
            change(content)
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            (root / place).write_text(json.dumps(content))
        for split, folder in pictures.items():
            shutil.copytree(shapes / split, root / folder, dirs_exist_ok=True)
        return root

    return farm


def test_a_data_set_without_a_split_gets_one_that_is_kept(farm, tmp_path, capsys):
    root = farm({"train": "labels.json"}, {"train": "data"})
    run = tmp_path / "run"
    assert train("faster_rcnn", root, run, *FAST) == 0
    out = capsys.readouterr().out
    assert f"Data: {root}: 6 classes (labels.json, pictures in data); 10 images, " in out
    assert " to train on; 2 images, " in out
    assert " held out, chosen image by image, kept in split.json.\n" in out
    parts = read(run / "split.json")
    names = {image["file_name"] for image in read(root / "labels.json")["images"]}
    assert (len(parts["train"]), len(parts["val"])) == (10, 2)
    assert set(parts["train"]) | set(parts["val"]) == names
    # The run is evaluated on what it held out, wherever its checkpoint came from.
    for options in ((), ("--data", run / "split.json")):
        assert call("faster_rcnn", "eval", "--weights", run, *options, "--output", tmp_path / "eval") == 0
        assert read(tmp_path / "eval" / "results.json")["bbox"] == read(run / "results.json")["bbox"]
    moved = shutil.copy(run / "checkpoints" / "last.pt", tmp_path / "moved.pt")
    assert call("faster_rcnn", "eval", "--weights", moved, "--output", tmp_path / "eval") == 0
    assert read(tmp_path / "eval" / "results.json")["bbox"] == read(run / "results.json")["bbox"]
    assert "Data: 2 images, " in capsys.readouterr().out
    # And another run learns from the same images.
    assert train("faster_rcnn", run / "split.json", tmp_path / "again", *FAST) == 0
    assert not (tmp_path / "again" / "split.json").exists()
    losses = [
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (run, tmp_path / "again")
    ]
    assert losses[0][0]["loss"] == losses[1][0]["loss"]


def test_train_and_valid_need_no_option(farm, tmp_path, capsys):
    places = {"train": "train/_annotations.coco.json", "val": "valid/_annotations.coco.json"}
    root = farm(places, {"train": "train", "val": "valid"})
    assert train("faster_rcnn", root, tmp_path / "run", *FAST) == 0
    out = capsys.readouterr().out
    assert f"Data: {root}: 6 classes; 12 images, " in out
    assert " to train on (train/_annotations.coco.json, pictures beside it); 4 images, " in out
    assert " held out (valid/_annotations.coco.json, pictures beside it).\n" in out
    assert train("faster_rcnn", root, tmp_path / "other", "--data.val-split", "valid", *FAST) == 0


def test_training_and_held_out_data_from_two_places(shapes, tmp_path, capsys):
    annotations = shapes / "annotations"
    small_run = ("faster_rcnn", "train", *small("faster_rcnn"), *FAST)
    both = ("--data.train", annotations / "instances_train.json", "--data.val", annotations / "instances_val.json")
    assert call(*small_run, *both, "--output", tmp_path / "both") == 0
    out = capsys.readouterr().out
    assert "; 12 images, " in out
    assert "; 4 images, " in out
    assert call("faster_rcnn", "eval", "--weights", tmp_path / "both", "--output", tmp_path / "eval") == 0
    assert read(tmp_path / "eval" / "results.json")["bbox"] == read(tmp_path / "both" / "results.json")["bbox"]
    capsys.readouterr()
    assert call(*small_run, *both[:2], "--output", tmp_path / "alone") == 0
    assert "held out, chosen image by image" in capsys.readouterr().out
    whole = ("--data", annotations / "instances_train.json")
    assert call(*small_run, *both[2:], *whole, "--output", tmp_path / "val") == 0
    assert "; 12 images, " in capsys.readouterr().out
    assert call(*small_run, *both[2:], "--output", tmp_path / "none") == 2
    assert "Add --data.train." in capsys.readouterr().err


def test_the_only_split_is_evaluated(farm, faster_rcnn_run, tmp_path, capsys):
    root = farm({"val": "annotations/instances_val2017.json"}, {"val": "val2017"})
    options = ("--weights", faster_rcnn_run, "--output", tmp_path / "eval")
    assert call("faster_rcnn", "eval", "--data", root, *options) == 0
    assert read(tmp_path / "eval" / "results.json")["bbox"] == read(faster_rcnn_run / "results.json")["bbox"]
    for split in ("2019", "2020"):
        shutil.copy(root / "annotations" / "instances_val2017.json", root / "annotations" / f"instances_{split}.json")
    (root / "annotations" / "instances_val2017.json").unlink()
    capsys.readouterr()
    assert call("faster_rcnn", "eval", "--data", root, *options) == 2
    assert "it has: 2019, 2020. Name the one to evaluate on: --split." in capsys.readouterr().err


@pytest.mark.parametrize("renumbered", [False, True])
def test_data_with_some_of_the_classes(renumbered, farm, faster_rcnn_run, tmp_path, capsys):
    def change(content: dict[str, Any]) -> None:
        content["categories"] = content["categories"][1:3][:: -1 if renumbered else 1]
        numbers = {c["id"]: i if renumbered else c["id"] for i, c in enumerate(content["categories"], 1)}
        content["annotations"] = [
            {**one, "category_id": numbers[one["category_id"]]}
            for one in content["annotations"]
            if one["category_id"] in numbers
        ]
        for category in content["categories"]:
            category["id"] = numbers[category["id"]]

    root = farm({"val": "annotations/instances_val.json"}, {"val": "val"}, change)
    options = ("--weights", faster_rcnn_run, "--data", root, "--output", tmp_path / "eval")
    assert call("faster_rcnn", "eval", *options) == 0
    assert "has 2 of the 6 that" in capsys.readouterr().out
    here, there = read(tmp_path / "eval" / "results.json")["bbox"], read(faster_rcnn_run / "results.json")["bbox"]
    classes = {name: value for name, value in here.items() if name.startswith("AP/")}
    assert len(classes) == 2
    assert classes == {name: there[name] for name in classes}
    ids = {category["id"] for category in read(root / "annotations" / "instances_val.json")["categories"]}
    assert {row["category_id"] for row in read(tmp_path / "eval" / "predictions.json")} <= ids


def test_data_with_a_class_that_the_detector_lacks(farm, faster_rcnn_run, tmp_path, capsys):
    def change(content: dict[str, Any]) -> None:
        content["categories"][0]["name"] = "forklift"

    root = farm({"val": "annotations/instances_val.json"}, {"val": "val"}, change)
    options = ("--weights", faster_rcnn_run, "--data", root, "--output", tmp_path / "eval")
    assert call("faster_rcnn", "eval", *options) == 2
    message = capsys.readouterr().err
    assert "does not know 1 of the 6 categories of" in message
    assert "'forklift'" in message
    assert "--classes" in message
    name = read(root / "annotations" / "instances_val.json")["categories"][1]["name"]
    assert call("faster_rcnn", "eval", *options, "--classes", name) == 0
    here, there = read(tmp_path / "eval" / "results.json")["bbox"], read(faster_rcnn_run / "results.json")["bbox"]
    assert here["AP"] == there[f"AP/{name}"]


@pytest.mark.parametrize("missing", ["objects", "objects and their key", "classes too"])
def test_data_without_truth(missing, farm, mask_rcnn_run, tmp_path, capsys):
    def change(content: dict[str, Any]) -> None:
        content["annotations"] = []
        if missing == "objects and their key":
            del content["annotations"]
        if missing == "classes too":
            content["categories"] = []

    root = farm({"val": "annotations/image_info_test-dev2017.json"}, {"val": "test2017"}, change)
    options = ("--weights", mask_rcnn_run, "--data", root)
    assert call("mask_rcnn", "eval", *options, "--output", tmp_path / "eval", "--pictures", 2) == 0
    out = capsys.readouterr().out
    assert "image_info_test-dev2017.json has no objects, so there is no bbox AP." in out
    assert str(tmp_path / "eval" / "predictions.json") in out
    found = read(tmp_path / "eval" / "predictions.json")
    assert found == read(mask_rcnn_run / "predictions.json")
    assert "bbox" not in read(tmp_path / "eval" / "results.json")
    assert len(list((tmp_path / "eval" / "pictures").iterdir())) == 2
    assert call("mask_rcnn", "predict", *options, "--split", "test-dev2017", "--output", tmp_path / "predict") == 0
    rows = read(tmp_path / "predict" / "predictions.json")
    ids = {image["id"] for image in read(root / "annotations" / "image_info_test-dev2017.json")["images"]}
    assert {row["image_id"] for row in rows} <= ids
    assert [set(row) for row in rows] == [{"image_id", "category_id", "bbox", "score", "segmentation"}] * len(rows)
    assert sorted((row["image_id"], row["category_id"]) for row in rows) == sorted(
        (row["image_id"], row["category_id"]) for row in found
    )


def test_the_objects_are_counted(farm, faster_rcnn_run, tmp_path, capsys):
    def change(content: dict[str, Any]) -> None:
        content["annotations"][0]["ignore"] = 1
        content["annotations"][1]["iscrowd"] = 1
        content["annotations"][2]["bbox"][2] = 0

    root = farm({"val": "annotations/instances_val.json"}, {"val": "val"}, change)
    objects = read(root / "annotations" / "instances_val.json")["annotations"]
    crowd = sum(one["iscrowd"] for one in objects)
    options = ("--weights", faster_rcnn_run, "--data", root, "--output", tmp_path / "eval")
    assert call("faster_rcnn", "eval", *options) == 0
    regions = "1 crowd region" if crowd == 1 else f"{crowd} crowd regions"
    said = f"Data: 4 images, {len(objects) - crowd - 2} objects, {regions}, 1 ignored, 1 dropped ("
    assert said in capsys.readouterr().out


def test_predict_takes_pictures_or_a_data_set(shapes, mask_rcnn_run, capsys):
    weights = ("--weights", mask_rcnn_run)
    for arguments in ((shapes / "val", "--data", shapes), (shapes / "val", "--split", "val"), ()):
        assert call("mask_rcnn", "predict", *arguments, *weights) == 2
        assert "data" in capsys.readouterr().err


def test_a_run_is_evaluated_on_its_own_data(farm, faster_rcnn_run, shapes, tmp_path, capsys):
    assert call("faster_rcnn", "eval", "--weights", faster_rcnn_run, "--output", tmp_path / "eval") == 0
    assert read(tmp_path / "eval" / "results.json")["bbox"] == read(faster_rcnn_run / "results.json")["bbox"]
    options = ("--weights", faster_rcnn_run, "--split", "train", "--output", tmp_path / "eval")
    assert call("faster_rcnn", "eval", *options) == 0
    assert "Data: 12 images, " in capsys.readouterr().out
    root = farm({"train": "train.json", "val": "val.json"}, {"train": "train", "val": "val"})
    assert train("faster_rcnn", root, tmp_path / "run", *FAST) == 0
    shutil.rmtree(root)
    assert call("faster_rcnn", "eval", "--weights", tmp_path / "run") == 2
    message = capsys.readouterr().err
    assert f"{root} does not exist" in message
    assert "--data" in message


def test_long_lines_are_folded_in_terminals_alone(capsys, monkeypatch):
    line = "Data: " + ", ".join(f"{n} objects of the class number-{n}" for n in range(9)) + " (" + 90 * "x" + ")."
    say(line)
    assert capsys.readouterr().out == line + "\n"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    say(line)
    folded = capsys.readouterr().out.splitlines()
    assert len(folded) > 4
    assert [part for part in folded if len(part) > 80] == ["  (" + 90 * "x" + ")."]
    assert " ".join(part.strip() for part in folded) == line
