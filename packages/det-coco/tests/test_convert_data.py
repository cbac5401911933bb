import json
from pathlib import Path

import numpy as np
import pytest

from det_coco import CocoIndex, DataError, find_splits
from det_coco.__main__ import main
from det_coco.formats.conversion import convert_data


def test_coco_to_coco_keeps_everything_exactly(dataset, tmp_path):
    out = tmp_path / "out"
    assert main(["convert", str(dataset), str(out), "--to", "coco", "--split", "val"]) == 0
    name = Path("annotations", "instances_val.json")
    before, after = json.loads((dataset / name).read_text()), json.loads((out / name).read_text())
    assert after == before
    assert {type(a["segmentation"]) for a in after["annotations"]} == {list, dict}
    assert any(a["iscrowd"] for a in after["annotations"])
    assert (
        CocoIndex.load(out / name, out / "val").fingerprint
        == CocoIndex.load(dataset / name, dataset / "val").fingerprint
    )


def test_what_is_lost_in_yolo_is_counted(dataset, tmp_path, capsys):
    assert main(["convert", str(dataset), str(tmp_path / "out"), "--to", "yolo", "--split", "val"]) == 0
    content = json.loads((dataset / "annotations" / "instances_val.json").read_text())
    crowd = sum(a["iscrowd"] for a in content["annotations"])
    out = capsys.readouterr().out
    assert f" {crowd} crowd regions" in out
    assert f" {len(content['annotations']) - crowd} masks (the option --masks" in out
    assert f" {len(content['images'])} image ids" in out


@pytest.mark.parametrize("missing", [True, False])
def test_sizes_that_are_missing_are_written(content, write, tmp_path, missing):
    write(content)
    expected = [(image["height"], image["width"]) for image in content["images"]]
    for image in content["images"]:
        image["height"] = None
        if missing:
            del image["height"]
    (tmp_path / "annotations" / "instances_train.json").write_text(json.dumps(content))
    assert main(["convert", str(tmp_path), str(tmp_path / "out"), "--to", "coco"]) == 0
    written = json.loads((tmp_path / "out" / "annotations" / "instances_train.json").read_text())
    assert [(image["height"], image["width"]) for image in written["images"]] == expected


def test_boxes_in_another_form_are_not_written_on_as_they_stand(content, write, tmp_path, capsys):
    sizes = {image["id"]: (image["width"], image["height"]) * 2 for image in content["images"]}
    for annotation in content["annotations"]:
        scale = sizes[annotation["image_id"]]
        annotation["bbox"] = [v / side for v, side in zip(annotation["bbox"], scale, strict=True)]
    write(content)
    assert main(["convert", str(tmp_path), str(tmp_path / "out"), "--to", "coco"]) == 2
    assert (
        "as boxes, masks and pictures together show; they were read so. What is written would have them as they are."
        in capsys.readouterr().err
    )
    assert main(["check", str(tmp_path), "--fix", str(tmp_path / "mended"), "--page", str(tmp_path / "page")]) == 1
    assert main(["convert", str(tmp_path / "mended"), str(tmp_path / "out"), "--to", "coco"]) == 0


def test_nothing_is_written_over(dataset, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("kept")
    assert main(["convert", str(dataset), str(tmp_path), "--to", "coco"]) == 2
    assert "Nothing is written over" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("args", [["nothing"], ["convert", "{data}", "{out}", "--to", "coco", "--split", "other"]])
def test_wrong_use_is_said(dataset, tmp_path, capsys, args):
    assert main([arg.format(data=dataset, out=tmp_path / "out") for arg in args]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("pictures", ["link", "copy", "none"])
def test_pictures_are_linked_copied_or_left(dataset, tmp_path, pictures):
    convert_data(find_splits(dataset), tmp_path / "out", to="coco", pictures=pictures)
    made = sorted((tmp_path / "out").rglob("*.png")) or sorted((tmp_path / "out").rglob("*.jpg"))
    assert bool(made) == (pictures != "none")
    assert all(path.is_symlink() == (pictures == "link") and path.stat().st_size for path in made)


def test_ids_that_tools_cannot_tell_apart_are_replaced_and_counted(content, write, tmp_path):
    content["annotations"][0]["id"] = content["annotations"][1]["id"] = 0
    file, _ = write(content)
    lost = convert_data(find_splits(file.parent.parent), tmp_path / "out", to="coco")
    written = json.loads((tmp_path / "out" / "annotations" / "instances_train.json").read_text())
    assert [a["id"] for a in written["annotations"]] == [1, 2]
    assert list(lost.values()) == [2]


@pytest.mark.parametrize("given", [{}, {"area": None}])
def test_objects_without_area_get_that_of_their_mask(content, write, tmp_path, given):
    del content["annotations"][0]["area"]
    content["annotations"][0] |= given
    file, _ = write(content)
    convert_data(find_splits(file.parent.parent), tmp_path / "out", to="coco")
    written = json.loads((tmp_path / "out" / "annotations" / "instances_train.json").read_text())
    assert np.isclose(written["annotations"][0]["area"], 60)


def test_lvis_keeps_what_each_image_was_searched_for(content, write, tmp_path):
    for category, frequency in zip(content["categories"], "rf", strict=True):
        category["frequency"] = frequency
    for image, absent in zip(content["images"], ([4], []), strict=True):
        image |= {"neg_category_ids": absent, "not_exhaustive_category_ids": [9]}
    file, _ = write(content)
    for image in content["images"]:
        image["coco_url"] = f"http://images.cocodataset.org/train/{image.pop('file_name')}"
    file.write_text(json.dumps(content))
    before = find_splits(file.parent.parent)["train"].load().federation
    assert not convert_data(find_splits(file.parent.parent), tmp_path / "out", to="coco")
    after = find_splits(tmp_path / "out")["train"].load()
    assert after.file_names.tolist() == ["train/a.png", "train/b.png"]
    for name in ("frequencies", "negative", "not_exhaustive"):
        assert getattr(after.federation, name).tolist() == getattr(before, name).tolist()
    assert after.federation.negative.tolist() == [[1, 0]]


def test_images_without_truth_are_written_too(content, write, tmp_path):
    del content["annotations"]
    file, _ = write(content)
    convert_data(find_splits(file.parent.parent), tmp_path / "out", to="coco")
    assert json.loads((tmp_path / "out" / "annotations" / "instances_train.json").read_text())["annotations"] == []


def test_splits_of_different_classes_become_coco_but_not_yolo(content, write, tmp_path):
    write(content)
    content["categories"][0]["name"] = "cow"
    file, _ = write(content, "val")
    sources = find_splits(file.parent.parent)
    with pytest.raises(DataError, match="different categories"):
        convert_data(sources, tmp_path / "yolo", to="yolo")
    assert not (tmp_path / "yolo").exists()
    convert_data(sources, tmp_path / "coco", to="coco")
    assert find_splits(tmp_path / "coco")["val"].load().categories == {4: "dog", 9: "cow"}
