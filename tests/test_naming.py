"""Libraries speak of their parameters, and commands name the options for them."""

import ast
import logging
import re
from pathlib import Path

import pytest

from apps.common.app import App
from apps.common.naming import options_named, with_options
from det_coco import BatchShape, CocoIndex, DataError, load_split
from det_coco.images import load_image
from det_coco.selection import select_instances
from det_engine import EngineError
from det_models import OptionError
from testing import ROOT
from testing.command_line import APPS
from testing.command_line import call as call_app


def said(app: App, command: str, call) -> str:
    with pytest.raises(DataError) as caught, options_named(app, command):
        call()
    return str(caught.value)


def test_limits_have_options(shapes):
    index = load_split(shapes, "train")
    shape = BatchShape(max_instances=1, max_edges=2, max_polygons=1)
    message = said(APPS["mask_rcnn"], "train", lambda: select_instances(index, shape))
    for option in ("max_instances (--data.max-instances)", "max_edges (--data.max-edges)",
                   "max_polygons (--data.max-polygons)", "drop_excess (--data.drop-excess True)"):  # fmt: skip
        assert message.count(option) == 1
    with pytest.raises(DataError) as caught:
        select_instances(index, shape)
    assert "--" not in str(caught.value)


@pytest.mark.parametrize(
    ("command", "option"), [("train", "--data.exif False"), ("eval", "--exif False"), ("predict", "--exif False")]
)
def test_the_orientation_has_an_option(command, option, tmp_path):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg", exif=exif)
    message = said(APPS["mask_rcnn"], command, lambda: load_image(tmp_path / "a.jpg", size=(20, 30)))
    assert f"by exif=False ({option}), or" in message


@pytest.mark.parametrize(
    ("app", "command", "option"),
    [
        ("mask_rcnn", "eval", "--max-detections"),
        ("mask_rcnn", "train", "--detector.box.max-detections"),
        ("yolact", "train", "--detector.max-detections"),
    ],
)
def test_lines_of_the_log_have_options(app, command, option, caplog):
    with caplog.at_level(logging.WARNING, "det_coco"):
        with options_named(APPS[app], command):
            logging.getLogger("det_coco").warning("Raise max_detections to %s.", "count more")
        logging.getLogger("det_coco").warning("Raise max_detections.")
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [f"Raise max_detections ({option}) to count more.", "Raise max_detections."]
    # That there is such an option.
    if command == "train":
        from det_engine.options import option_names

        recipe = next(iter(APPS[app].recipes.values()))()
        assert option in option_names(recipe)


@pytest.mark.parametrize("command", ["eval", "predict", "export"])
def test_what_a_detector_is_told_has_options(command):
    for parameter, option in [("size", "--size"), ("nms_iou", "--nms-iou"), ("batch_size", "--batch")]:
        with pytest.raises(OptionError) as caught, options_named(APPS["yolact"], command):
            raise OptionError(f"{parameter} must be another, got this size.")
        assert str(caught.value) == f"{parameter} ({option}) must be another, got this size."


def test_what_a_training_is_told_has_options():
    from det_engine.options import option_names

    names = option_names(next(iter(APPS["mask_rcnn"].recipes.values()))())
    with pytest.raises(EngineError) as caught, options_named(APPS["mask_rcnn"], "train"):
        raise EngineError("The solver.bias_lr_factor and settings.freeze of a run.")
    assert str(caught.value) == (
        "The solver.bias_lr_factor (--solver.bias-lr-factor) and settings.freeze (--train.freeze) of a run."
    )
    assert {"--solver.bias-lr-factor", "--train.freeze"} <= set(names)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--nms-iou", "2"], "nms_iou (--nms-iou) must be above 0 and at most 1, got 2."),
        (["--size", "96", "64"], "size (--size) must have the shorter side first, got (96, 64)."),
        (["--size", "0"], "size (--size) must be at least 1, got 0."),
        (["--max-detections", "100000"], "max_detections (--max-detections) must be at most"),
    ],
)
def test_messages_of_a_detector_name_options(arguments, expected, mask_rcnn_run, shapes, capsys):
    weights = mask_rcnn_run / "checkpoints" / "best.pt"
    assert call_app("mask_rcnn", "eval", "--weights", weights, "--data", shapes, *arguments) == 2
    assert expected in capsys.readouterr().err


def test_paths_are_left_alone():
    options = {"buckets": "--data.buckets"}
    for text in ("/data/buckets/a.json is empty.", "buckets/a.png", "a/buckets.json", "my_buckets"):
        assert with_options(text, options) == text
    assert with_options("the buckets are small; raise buckets.", options) == (
        "the buckets (--data.buckets) are small; raise buckets."
    )


def test_no_library_names_an_option_of_the_apps():
    sections = re.compile(r"--(data|solver|train|detector|backbone)\.")
    for file in sorted((ROOT / "packages").glob("*/src/**/*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Raise):
                assert not sections.search(ast.unparse(node)), f"{file}:{node.lineno}"


@pytest.mark.parametrize("name", ["a.json", "annotations.xml", "data.yaml"])
def test_predict_of_an_annotation_file_names_the_option(name, tmp_path, capsys):
    (tmp_path / name).write_text("{}")
    assert call_app("mask_rcnn", "predict", "--weights", "x.pt", tmp_path / name) == 2
    expected = f"error: {tmp_path / name} is no picture. A data set is named by an option: --data {tmp_path / name}."
    assert capsys.readouterr().err.strip() == expected


def test_predict_of_a_data_set_names_the_option(shapes, tmp_path, capsys):
    assert call_app("mask_rcnn", "predict", "--weights", "x.pt", shapes) == 2
    assert f"A data set is named by an option: --data {shapes}." in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert call_app("mask_rcnn", "predict", "--weights", "x.pt", tmp_path / "empty") == 2
    assert "holds no picture" in capsys.readouterr().err


def test_one_image_that_cannot_be_split(shapes, tmp_path, capsys):
    index = load_split(shapes, "train")
    assert isinstance(index, CocoIndex)
    picture = index.path(0)
    file = Path(tmp_path) / "one.json"
    height, width = index.image_size(int(index.image_ids[0]))
    file.write_text(
        f'{{"images": [{{"id": 1, "file_name": "{picture}", "height": {height}, "width": {width}}}], "categories": '
        '[{"id": 1, "name": "cat"}], "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 9, 9]}]}'
    )
    (tmp_path / picture.name).write_bytes(picture.read_bytes())
    assert call_app("faster_rcnn", "train", "--data", file, "--output", tmp_path / "run") == 2
    assert "or name other ones to evaluate on. The option is --data.val." in capsys.readouterr().err


def test_a_step_to_repeat_has_a_command():
    with pytest.raises(EngineError) as caught, options_named(APPS["yolact"], "train"):
        raise EngineError("Repeat it with: replay runs/a/failures/step-2.pt.")
    assert str(caught.value) == "Repeat it with: hatch run apps/yolact replay runs/a/failures/step-2.pt."
