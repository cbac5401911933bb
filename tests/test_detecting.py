"""The options by which `eval` and `predict` change a detector, and the same detector from Python."""

from pathlib import Path

import numpy as np
import pytest

from det_coco import list_images
from det_models import load
from testing.command_line import call, read


def predictions(run: Path, pictures: Path, output: Path, *options: object, app: str = "mask_rcnn") -> list[dict]:
    assert call(app, "predict", "--weights", run, "--output", output, *options, pictures) == 0
    return read(output / "predictions.json")


@pytest.mark.parametrize("app", ["mask_rcnn", "faster_rcnn", "cascade_rcnn", "yolact"])
def test_the_command_finds_what_python_finds(app: str, shapes: Path, tmp_path: Path, request) -> None:
    """The same rows to the last bit, of the best checkpoint in the folder of a run."""
    run = request.getfixturevalue(f"{app}_run")
    rows = predictions(run, shapes / "val", tmp_path / "out", app=app)
    detector = load(run, device="cpu")
    found = [
        {**row, "file_name": str(path)}
        for number, path in enumerate(list_images(shapes / "val"), 1)
        for row in detector.predict(path).to_coco(number)
    ]
    assert rows == found
    assert len(rows) > 0


def test_options_of_predict(mask_rcnn_run: Path, shapes: Path, tmp_path: Path) -> None:
    options = ("--classes", "disc", "ring", "--max-detections", 3, "--nms-iou", 0.3, "--size", 72, 100, "--batch", 2)
    rows = predictions(mask_rcnn_run, shapes / "val", tmp_path / "out", *options)
    detector = load(
        mask_rcnn_run, device="cpu", classes=["disc", "ring"], max_detections=3, nms_iou=0.3, size=(72, 100)
    )
    assert set(detector.categories.values()) == {"disc", "ring"}
    assert {row["category_id"] for row in rows} <= set(detector.categories)
    images = [row["image_id"] for row in rows]
    assert max(images.count(image) for image in images) <= 3
    found = list(detector.predict(shapes / "val", batch_size=2))
    np.testing.assert_allclose([row["score"] for row in rows], np.concatenate([one.scores for one in found]))


def test_options_of_eval(mask_rcnn_run: Path, shapes: Path, tmp_path: Path) -> None:
    """Metrics are of the chosen categories alone."""
    arguments = ("eval", "--weights", mask_rcnn_run, "--data", shapes, "--output", tmp_path / "out", "--pictures", 0)
    assert call("mask_rcnn", *arguments, "--classes", "disc", "--size", 72, "--min-score", 0.02) == 0
    results = read(tmp_path / "out" / "results.json")
    assert [name for name in results["bbox"] if "/" in name] == ["AP/disc"]
    rows = read(tmp_path / "out" / "predictions.json")
    assert all(row["score"] >= 0.02 for row in rows)
    assert len({row["category_id"] for row in rows}) <= 1


@pytest.mark.parametrize("command", ["eval", "predict"])
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--classes", "dsic"), "knows no class 'dsic'. Did you mean 'disc'?"),
        (("--max-detections", 0), "Option --max-detections must be at least 1, got 0"),
        (("--max-detections", 10**7), "which this network can give, got 10000000"),
        (("--nms-iou", 2), "nms_iou (--nms-iou) must be above 0 and at most 1, got 2"),
        (("--size", 1, 2, 3), "size takes one length or two, got 3"),
        (("--size", 96, 64), "the shorter side first"),
        (("--batch", 0), "Option --batch must be at least 1, got 0"),
        (("--batch", "many"), "Option --batch takes a whole number or None, got 'many'"),
        (("--min-score", 50), "Option --min-score must be between 0 and 1, got 50"),
    ],
)
def test_what_an_option_cannot_be(command, options, says, mask_rcnn_run, shapes, tmp_path, capsys) -> None:
    capsys.readouterr()
    data = ("--data", shapes) if command == "eval" else (next((shapes / "val").iterdir()),)
    options = ("--weights", mask_rcnn_run, "--output", tmp_path / "out", *options)
    assert call("mask_rcnn", command, *((*options, *data) if command == "eval" else (*data, *options))) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
