"""Data sets of other formats through the commands."""

import base64
import json
from pathlib import Path

from det_coco import load_split
from testing.command_line import call, read, train


def test_a_converted_data_set_trains_and_is_evaluated(shapes, tmp_path, capsys):
    out, run = tmp_path / "yolo", tmp_path / "run"
    assert call("mask_rcnn", "convert-data", shapes, out, "--to", "yolo", "--masks") == 0
    assert "Not kept:" in capsys.readouterr().out
    assert train("mask_rcnn", out, run) == 0
    assert "AP" in read(run / "results.json")["segm"]
    assert call("mask_rcnn", "eval", "--weights", run / "checkpoints" / "last.pt", "--data", out) == 0
    assert call("mask_rcnn", "convert-data", shapes, out, "--to", "coco") == 2
    assert "Nothing is written over" in capsys.readouterr().err


def test_pictures_within_labelmes_files_are_trained_on_and_drawn(shapes, tmp_path):
    data, run = tmp_path / "labelme", tmp_path / "run"
    for split in ("train", "val"):
        index = load_split(shapes, split)
        (data / split).mkdir(parents=True)
        for position in range(min(len(index), 8)):
            rows = index.instances(position)
            drawn = [
                {"label": index.class_names[label], "shape_type": "rectangle", "points": [box[:2], box[2:]]}
                for label, box in zip(index.labels[rows].tolist(), index.boxes[rows].tolist(), strict=True)
            ]
            file = index.path(position)
            content = {"version": "5.5.0", "shapes": drawn, "imagePath": file.name}
            content["imageData"] = base64.b64encode(file.read_bytes()).decode()
            Path(data / split / f"{file.stem}.json").write_text(json.dumps(content))
    assert train("faster_rcnn", data, run) == 0
    assert "AP" in read(run / "results.json")["bbox"]
    assert list((run / "pictures").glob("*.png"))
