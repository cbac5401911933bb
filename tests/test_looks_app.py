"""`--tile` and `--tta` of `predict` and `eval`: what Python finds in the same pictures."""

import pytest

from det_coco import list_images
from det_models import Tiling, Views, load
from testing.command_line import call, read

TILES = ("--tile", 56, "--overlap", 0.25)


@pytest.mark.parametrize("app", ["mask_rcnn", "yolact"])
def test_predict(app, shapes, tmp_path, request, capsys):
    run = request.getfixturevalue(f"{app}_run")
    assert call(app, "predict", "--weights", run, *TILES, "--output", tmp_path / "out", shapes / "val") == 0
    rows = read(tmp_path / "out" / "predictions.json")
    detector = load(run, device="cpu")
    assert rows == [
        {**row, "file_name": str(path)}
        for number, path in enumerate(list_images(shapes / "val"), 1)
        for row in detector.predict(path, tile=56, overlap=0.25).to_coco(number)
    ]
    assert len(rows) > 0
    assert len(list((tmp_path / "out" / "pictures").iterdir())) == 4
    assert f"{shapes / 'val'}" in capsys.readouterr().out


def test_all_options_of_tiles(mask_rcnn_run, shapes, tmp_path):
    options = ("--tile", 40, 56, "--tile-whole", False, "--tile-merge", "join", "--tile-match", "iou")
    (path, *_) = list_images(shapes / "val")
    assert call("mask_rcnn", "predict", "--weights", mask_rcnn_run, "--output", tmp_path / "out", path, *options) == 0
    tiling = Tiling(size=(40, 56), whole=False, merge="join", match="iou")
    found = load(mask_rcnn_run, device="cpu").predict(path, tile=tiling)
    assert [row["segmentation"] for row in read(tmp_path / "out" / "predictions.json")] == found.rle


def test_eval_counts_what_predict_finds(mask_rcnn_run, shapes, tmp_path):
    data = ("--weights", mask_rcnn_run, "--data", shapes, "--batch", 2, *TILES)
    assert call("mask_rcnn", "eval", *data, "--pictures", 0, "--output", tmp_path / "eval") == 0
    assert call("mask_rcnn", "predict", *data, "--output", tmp_path / "predict") == 0
    rows = read(tmp_path / "eval" / "predictions.json")
    assert len(rows) > 0
    key = ("image_id", "score", "bbox")
    expected = sorted(read(tmp_path / "predict" / "predictions.json"), key=lambda row: [row[name] for name in key])
    assert sorted(rows, key=lambda row: [row[name] for name in key]) == expected
    assert "AP" in read(tmp_path / "eval" / "results.json")["segm"]


@pytest.mark.parametrize("app", ["cascade_rcnn", "yolact"])
def test_test_time_augmentation(app, shapes, tmp_path, request):
    run = request.getfixturevalue(f"{app}_run")
    data = ("--weights", run, "--data", shapes, "--tta", "--tta-sizes", 48, 64)
    assert call(app, "predict", *data, "--output", tmp_path / "predict") == 0
    assert call(app, "eval", *data, "--pictures", 0, "--output", tmp_path / "eval") == 0
    rows = read(tmp_path / "predict" / "predictions.json")
    assert sorted(rows, key=str) == sorted(read(tmp_path / "eval" / "predictions.json"), key=str)
    (path, *_) = list_images(shapes / "val")
    found = load(run, device="cpu").predict(path, tta=Views(sizes=(48, 64)))
    assert len(found) > 0
    assert [row["segmentation"] for row in rows if row["image_id"] == rows[0]["image_id"]] == found.rle


@pytest.mark.parametrize("command", ["eval", "predict"])
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--tile", 0), "Option --tile must be at least 1, got 0"),
        (("--tile", 1, 2, 3), "Option --tile must be one length or a height and a width"),
        (("--tile", 64, "--overlap", 1), "Option --overlap must be a share of a tile, from 0 to below 1, got 1"),
        (("--overlap", 0.1), "Option --overlap is of tiles, whose size tile says"),
        (("--tile-merge", "join"), "Option --tile-merge is of tiles, whose size tile says"),
        (("--tile", 64, "--tta"), "Option --tta cannot be had together with tile"),
        (("--tta-sizes", 64), "Option --tta-sizes are of test-time augmentation, which tta asks for"),
        (("--tta", "--tta-sizes", 0), "Option --tta-sizes must be at least 1, got 0"),
        (("--tile", 64, "--tile-merge", "wbf"), "Option --tile-merge takes one of nms, join or None, got 'wbf'"),
    ],
)
def test_what_an_option_cannot_be(command, options, says, mask_rcnn_run, shapes, tmp_path, capsys):
    arguments = ("--weights", mask_rcnn_run, "--output", tmp_path / "out", "--data", shapes, *options)
    assert call("mask_rcnn", command, *arguments) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
