"""What `eval` counts, and that it does not depend on how many processes share the images."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from apps.common.evaluate import Evaluator, comparable, protocol_of
from det_coco import CocoIndex, Detections, Federation, load_split
from testing.command_line import call, process, read


@pytest.fixture
def one_thread():
    """As each of several processes has: other numbers of threads add in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_processes_find_what_one_finds(mask_rcnn_run, shapes, tmp_path):
    """To the bit, in images that do not divide by the processes."""
    images = [image["id"] for image in read(shapes / "annotations" / "instances_val.json")["images"][:3]]
    options = ["--weights", mask_rcnn_run, "--data", shapes, "--device", "cpu", "--pictures", 0, "--images", *images]
    assert call("mask_rcnn", "eval", *options, "--batch", 1, "--output", tmp_path / "one") == 0
    job = process("mask_rcnn", "eval", *options, "--batch", 2, "--nproc", 2, "--output", tmp_path / "two")
    _, errors = job.communicate(timeout=600)
    assert job.returncode == 0, errors
    one, two = ((tmp_path / run / "predictions.json").read_bytes() for run in ("one", "two"))
    assert one == two
    assert {row["image_id"] for row in json.loads(one)} == set(images)
    one, two = (read(tmp_path / run / "results.json") for run in ("one", "two"))
    assert {**one, "images_per_second": 0} == {**two, "images_per_second": 0}


def test_limits_of_eval(mask_rcnn_run, shapes, tmp_path, capsys):
    arguments = ["eval", "--weights", mask_rcnn_run, "--data", shapes, "--output", tmp_path / "out", "--pictures", 1]
    rules = ["--max-detections", 300, "--iou-thresholds", 0.5, 0.6, "--area-ranges", "tiny", 0, 300, "rest", 300, 1e10]
    image = read(shapes / "annotations" / "instances_val.json")["images"][1]["id"]
    assert call("mask_rcnn", *arguments, *rules, "--images", image, "--per-class") == 0
    results = read(tmp_path / "out" / "results.json")
    assert {"AP50", "APtiny", "ARrest", "AR300"} <= results["segm"].keys()
    assert not {"AP75", "APs", "AR100"} & results["segm"].keys()
    assert {row["image_id"] for row in read(tmp_path / "out" / "predictions.json")} <= {image}
    out = capsys.readouterr().out.splitlines()
    index = load_split(shapes, "val").of_images([image])
    start = next(number for number, line in enumerate(out) if line.startswith("class "))
    assert out[start].split() == ["class", "objects", "bbox", "AP", "segm", "AP"]
    for label, line in enumerate(out[start + 1 : start + 1 + index.num_classes]):
        objects = int((index.labels[~index.crowd] == label).sum())
        values = [results[task][f"AP/{index.class_names[label]}"] for task in ("bbox", "segm")]
        shown = ["-" if value == -1 else f"{value:.3f}" for value in values]
        assert line.split() == [index.class_names[label], str(objects), *shown]
    assert max(map(len, out[start - 3 : start])) <= 80
    assert f"Detections: {tmp_path / 'out' / 'predictions.json'}" in out
    assert f"Pictures, the truth at the left: {tmp_path / 'out' / 'pictures'}" in out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--iou-thresholds", 0.6, 0.5], "Option --iou-thresholds must ascend"),
        (["--area-ranges", "a", 5, 4], "Option --area-ranges must have a smallest and a largest area"),
        (["--images", 987654], "has no image with id 987654"),
    ],
)
def test_limits_that_make_no_sense(mask_rcnn_run, shapes, tmp_path, capsys, options, says):
    arguments = ["eval", "--weights", mask_rcnn_run, "--data", shapes, "--output", tmp_path / "out"]
    assert call("mask_rcnn", *arguments, *options) == 2
    assert says in capsys.readouterr().err


class Perfect:
    """A detector that finds all objects of an index, at most `most` in an image."""

    tasks = ("bbox", "segm")
    batch_size = 1
    max_detections = None

    def __init__(self, index: CocoIndex, most: int) -> None:
        self.index = index
        self.categories = dict(index.categories)
        self.config: Any = SimpleNamespace(max_detections=most)


def crowded(folder: Path, count: int, *, masks: bool = False) -> CocoIndex:
    """A picture with many squares of one class."""
    Image.new("RGB", (160, 160)).save(folder / "a.png")
    annotations = [
        {"id": n + 1, "image_id": 1, "category_id": 1, "bbox": [x, y, 8, 8], "area": 64, "iscrowd": 0}
        | ({"segmentation": [[x, y, x + 8, y, x + 8, y + 8, x, y + 8]]} if masks else {})
        for n, (x, y) in enumerate((10 * (n % 15), 10 * (n // 15)) for n in range(count))
    ]
    images = [{"id": 1, "file_name": "a.png", "height": 160, "width": 160}]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
    (folder / "a.json").write_text(json.dumps(content))
    return CocoIndex.load(folder / "a.json", folder)


def evaluated(index: CocoIndex, most: int, monkeypatch) -> dict[str, dict[str, float]]:
    detector = Perfect(index, most)
    evaluator = Evaluator(lambda: detector, index, workers=0)  # type: ignore[arg-type, return-value]
    count = index.num_instances
    found = Detections.of_image(index, 1, index.boxes, np.full(count, 0.9), index.labels)[np.arange(min(count, most))]
    monkeypatch.setattr(evaluator, "_detect", lambda _: iter([found]))
    return evaluator()  # type: ignore[return-value]


@pytest.mark.parametrize(("most", "name", "expected"), [(100, "AR100", 0.663), (300, "AR300", 1), (150, "AR150", 1)])
def test_all_that_the_detector_may_find_counts(tmp_path, monkeypatch, capsys, most, name, expected):
    metrics = evaluated(crowded(tmp_path, 150), most, monkeypatch)
    assert metrics["bbox"]["AP"] == pytest.approx(expected, abs=1e-3)
    assert name in metrics["bbox"]


def test_masks_are_not_scored_against_boxes(tmp_path, monkeypatch, capsys):
    index = crowded(tmp_path, 3)
    metrics = evaluated(index, 100, monkeypatch)
    assert list(metrics) == ["bbox"]
    assert metrics["bbox"]["AP"] == pytest.approx(1)
    assert "a.json has no masks ('segmentation'), so there is no segm AP." in capsys.readouterr().out
    assert comparable(crowded(tmp_path, 3, masks=True), ("bbox", "segm")) == ("bbox", "segm")


def test_a_mask_model_on_boxes(mask_rcnn_run, shapes, tmp_path, capsys):
    """The whole command: box AP is given, mask AP refused and said."""
    content = read(shapes / "annotations" / "instances_val.json")
    for annotation in content["annotations"]:
        annotation.pop("segmentation")
    data = tmp_path / "data"
    (data / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        (data / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
        (data / split).symlink_to(shapes / "val", target_is_directory=True)
    out = tmp_path / "out"
    assert call("mask_rcnn", "eval", "--weights", mask_rcnn_run, "--data", data, "--output", out) == 0
    results = read(out / "results.json")
    assert "bbox" in results
    assert "segm" not in results
    assert "so there is no segm AP" in capsys.readouterr().out


def test_federated_data_are_evaluated_by_lvis_rules(tmp_path):
    index = crowded(tmp_path, 3)
    rules = protocol_of(Perfect(index, 100), index, Evaluator(lambda: None, index, workers=0).rules)  # type: ignore
    assert (rules.federated, rules.max_detections) == (False, "coco")
    pairs = np.zeros((0, 2), dtype=np.int64)
    federation = Federation(frequencies=np.array(["f"]), negative=pairs, not_exhaustive=pairs)
    index = replace(index, federation=federation)
    rules = protocol_of(Perfect(index, 100), index, rules)  # type: ignore[arg-type]
    assert (rules.federated, rules.max_detections) == (True, 300)
