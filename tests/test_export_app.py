"""The command `export`, and its files as `--weights` of the others."""

import json

import numpy as np
import pytest
from PIL import Image

from testing.command_line import call, read
from testing.trained import small_model, write_model, write_trained


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(2):
        noise = np.random.default_rng(number).integers(0, 256, (6, 9, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((144, 96)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_trained(tmp_path_factory.mktemp("checkpoint") / "best.pt")


@pytest.fixture(scope="module")
def exported(tmp_path_factory, checkpoint):
    out = tmp_path_factory.mktemp("exported") / "detector.pt2"
    assert call("mask_rcnn", "export", out, "--weights", checkpoint, "--to", "pt2") == 0
    return out


def test_export_is_certified(checkpoint, pictures, tmp_path, capsys, recwarn):
    out = tmp_path / "new" / "detector.pt2"
    assert call("mask_rcnn", "export", out, "--weights", checkpoint, "--to", "pt2", "--certify", pictures) == 0
    told = capsys.readouterr().out
    assert "Parity certificate: best.pt and" in told
    assert "PASSED: the same detections." in told
    assert not [warning for warning in recwarn if "complete tensor" in str(warning.message)]
    assert sorted(file.name for file in out.parent.iterdir()) == [
        "detector.pt2",
        "detector.pt2.json",
        "detector.pt2.py",
    ]
    assert call("mask_rcnn", "export", out, "--weights", checkpoint, "--to", "pt2") == 2
    assert "exists already" in capsys.readouterr().err


def test_what_finds_something_else_is_not_written(checkpoint, pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("apps.common.export.passes", lambda *_: (False, "FAILED: other detections."))
    out = tmp_path / "detector.pt2"
    command = ["export", out, "--weights", checkpoint, "--to", "pt2", "--certify", pictures]
    assert call("mask_rcnn", *command) == 2
    told = capsys.readouterr()
    assert "is not written, since it would find something else" in told.err
    assert "--buckets True, or a --size that fits them, pads less" in told.err
    assert "sees the zeros" not in told.out
    assert not list(tmp_path.iterdir())
    assert call("mask_rcnn", *command, "--force", "True") == 0
    assert out.exists()


def test_what_depends_on_padding_gets_the_shapes_of_its_training(pictures, tmp_path, capsys):
    weights = write_model(tmp_path / "fcos.pt", small_model("torchvision-fcos"))
    command = ["export", tmp_path / "two.pt2", "--weights", weights, "--to", "pt2"]
    assert call("retinanet", *command) == 0
    told = capsys.readouterr().out
    assert "so there is a file for each shape of its training; --buckets False makes one for all." in told
    assert "two-64x96.pt2, two-96x64.pt2" in told
    assert call("retinanet", *command) == 2
    assert "exists already" in capsys.readouterr().err
    output = tmp_path / "predicted"  # under the name that was asked for
    command = ["predict", pictures, "--weights", tmp_path / "two.pt2", "--output", output, "--min-score", 0.01]
    assert call("retinanet", *command) == 0
    assert json.loads((output / "predictions.json").read_text())
    capsys.readouterr()
    one = ["export", tmp_path / "one.pt2", "--weights", weights, "--to", "pt2", "--buckets", "False"]
    assert call("retinanet", *one) == 0
    told = capsys.readouterr().out
    assert "Note: this network sees the zeros beside a picture, as by group norm, so what it finds depends" in told
    assert (tmp_path / "one.pt2").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--to", "executorch"], "must end with .pte"),
        (["--to", "executorch", "--batch", "dynamic"], "must be a number for executorch"),
        (["--batch", "many"], "--batch must be a number of images or dynamic"),
        (["--precision", "int8"], "name some by --calibrate or --data"),
        (["--for", "ascend", "--batch", "dynamic"], "must be a number for Ascend"),
        (["--to", "openvino"], "must end with .xml"),
    ],
)
def test_what_cannot_be_had_is_said_in_a_line(checkpoint, tmp_path, capsys, options, words):
    assert call("mask_rcnn", "export", tmp_path / "detector.onnx", "--weights", checkpoint, *options) != 0
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_predict_and_eval_take_the_file(exported, shapes, pictures, tmp_path, capsys):
    output = tmp_path / "predicted"
    assert call("mask_rcnn", "predict", pictures, "--weights", exported, "--output", output, "--min-score", 0.1) == 0
    rows = json.loads((output / "predictions.json").read_text())
    assert rows
    assert {"bbox", "segmentation", "score", "category_id"} <= rows[0].keys()
    command = ["predict", pictures, "--weights", exported, "--output", output]
    assert call("mask_rcnn", *command, "--tile", 80) == 0
    assert len(json.loads((output / "predictions.json").read_text())) > len(rows) // 2
    assert call("mask_rcnn", *command, "--tta", "True") == 2
    assert "exported for its own sizes of images; leave out tta" in capsys.readouterr().err
    weights = exported.with_name("detector.pt2.json")
    output = tmp_path / "evaluated"
    command = ["eval", "--weights", weights, "--data", shapes, "--output", output, "--classes", "disc"]
    assert call("mask_rcnn", *command) == 0
    assert {"bbox", "segm"} <= read(output / "results.json").keys()
    assert call("faster_rcnn", "predict", pictures, "--weights", exported, "--output", output) == 2
    assert "is a detector for apps/mask_rcnn (exported for pt2 in fp32)" in capsys.readouterr().err


def test_files_are_measured_side_by_side(exported, checkpoint, shapes, capsys):
    command = ["benchmark", "--weights", exported, checkpoint, "--data", shapes, "--steps", 1, "--warmup", 0]
    assert call("mask_rcnn", *command) == 0
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert any(line.startswith("detector.pt2  pt2 fp32") for line in lines), told
    assert any(line.startswith("best.pt") and "det fp32" in line for line in lines)
