"""What `predict` does with files that are damaged, turned, of unusual formats, or without anything to draw."""

import json
import shutil
from dataclasses import replace
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from apps.common.drafts import Drafts
from det_coco import decode_rle, load_image, load_split
from det_coco._coco_api import coco_mask
from det_coco.mask_codec import instance_bitmap
from det_models import Detections
from testing.command_line import call, read, train


@pytest.fixture
def folder(shapes, tmp_path):
    """Three pictures, the second of them damaged, and a text."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    first, second, third = sorted((shapes / "val").iterdir())[:3]
    shutil.copy(first, folder / "a.png")
    (folder / "b.png").write_bytes(second.read_bytes()[:300])
    shutil.copy(third, folder / "c.png")
    (folder / "d.txt").write_text("no picture")
    return folder


def predict(run, folder, output, *options):
    return call("mask_rcnn", "predict", "--weights", run, "--output", output, *options, folder)


def test_a_damaged_picture_is_named_and_skipped(mask_rcnn_run, folder, tmp_path, capsys):
    assert predict(mask_rcnn_run, folder, tmp_path / "out") == 2
    out, err = capsys.readouterr()
    assert f"Skipped: The image {folder / 'b.png'} cannot be read" in out
    assert err.startswith("error: 1 of the files could not be read, or not to the end, and was skipped")
    assert "Traceback" not in err
    rows = read(tmp_path / "out" / "predictions.json")
    assert {row["file_name"] for row in rows} == {str(folder / name) for name in ("a.png", "c.png")}
    assert {row["image_id"] for row in rows} == {1, 2}
    names = sorted(path.name for path in (tmp_path / "out" / "pictures").iterdir())
    assert names == ["00001-a.png", "00002-c.png"]
    assert f"Detections: {tmp_path / 'out' / 'predictions.json'}" in out


def test_strict_ends_at_it(mask_rcnn_run, folder, tmp_path, capsys):
    assert predict(mask_rcnn_run, folder, tmp_path / "out", "--strict") == 2
    assert f"The image {folder / 'b.png'} cannot be read" in capsys.readouterr().err
    rows = read(tmp_path / "out" / "predictions.json")
    assert {row["file_name"] for row in rows} == {str(folder / "a.png")}


def test_where_nothing_is_drawn_the_best_score_and_the_option_are_named(mask_rcnn_run, folder, tmp_path, capsys):
    assert predict(mask_rcnn_run, folder / "a.png", tmp_path / "out", "--min-score", 1) == 0
    best = max(row["score"] for row in read(tmp_path / "out" / "predictions.json"))
    assert f"0 drawn (the best score is {best:.3f}, --min-score is 1)" in capsys.readouterr().out


def test_a_data_set_with_a_damaged_picture(mask_rcnn_run, shapes, folder, tmp_path, capsys):
    data = tmp_path / "data"
    (data / "annotations").mkdir(parents=True)
    shutil.copytree(folder, data / "val")
    content = read(shapes / "annotations" / "instances_val.json")
    content["images"] = content["images"][:3]
    for image, name in zip(content["images"], ("a.png", "b.png", "c.png"), strict=True):
        image["file_name"] = name
    known = {image["id"] for image in content["images"]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in known]
    (data / "annotations" / "instances_val.json").write_text(json.dumps(content))
    options = ("--weights", mask_rcnn_run, "--data", data, "--output", tmp_path / "out")
    assert call("mask_rcnn", "predict", *options) == 2
    assert "b.png" in capsys.readouterr().out
    found = {row["image_id"] for row in read(tmp_path / "out" / "predictions.json")}
    assert found == {content["images"][0]["id"], content["images"][2]["id"]}


def test_pictures_may_be_taken_as_they_are_stored(mask_rcnn_run, shapes, tmp_path):
    path = sorted((shapes / "val").iterdir())[0]
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(path) as picture:
        picture.save(tmp_path / "turned.png", exif=exif)
    found = {}
    for name, options in (("plain", (path,)), ("stored", ("--exif", False, tmp_path / "turned.png")),
                          ("turned", (tmp_path / "turned.png",))):  # fmt: skip
        assert predict(mask_rcnn_run, options[-1], tmp_path / name, *options[:-1]) == 0
        found[name] = [row["bbox"] for row in read(tmp_path / name / "predictions.json")]
    assert found["plain"] == found["stored"] != found["turned"]


def test_data_annotated_as_the_pictures_are_stored(mask_rcnn_run, shapes, tmp_path, capsys):
    """Refused with the option named, and evaluated with it as the same pictures without an orientation."""
    data = tmp_path / "data"
    shutil.copytree(shapes, data)
    exif = Image.Exif()
    exif[0x0112] = 6
    for path in (data / "val").iterdir():
        data_of_jpeg, segment = path.read_bytes(), exif.tobytes()
        assert data_of_jpeg[:2] == b"\xff\xd8"
        length = (len(segment) + 2).to_bytes(2, "big")
        path.write_bytes(data_of_jpeg[:2] + b"\xff\xe1" + length + segment + data_of_jpeg[2:])
    options = ("eval", "--weights", mask_rcnn_run, "--pictures", 0, "--data")
    assert call("mask_rcnn", *options, shapes, "--output", tmp_path / "one") == 0
    capsys.readouterr()
    assert call("mask_rcnn", *options, data, "--output", tmp_path / "two") == 2
    assert "exif=False (--exif False)" in capsys.readouterr().err
    assert call("mask_rcnn", *options, data, "--exif", False, "--output", tmp_path / "three") == 0
    assert read(tmp_path / "one" / "predictions.json") == read(tmp_path / "three" / "predictions.json")


@pytest.mark.parametrize("to", ["coco", "yolo"])
def test_detections_become_a_data_set_to_correct(mask_rcnn_run, shapes, tmp_path, capsys, to):
    options = ["--as-annotations", to, "--min-score", "0.05"]
    assert predict(mask_rcnn_run, shapes / "val", tmp_path / "out", *options) == 0
    assert f"Annotations to correct: {tmp_path / 'out' / 'annotations'}" in capsys.readouterr().out
    index = load_split(tmp_path / "out" / "annotations", "train")
    rows = [row for row in read(tmp_path / "out" / "predictions.json") if row["score"] >= 0.05]
    pictures = sorted((shapes / "val").iterdir())
    assert len(index) == len(pictures)
    assert 0 < index.num_instances <= len(rows)
    assert index.image(0).shape == load_image(pictures[0]).shape
    if to == "coco":
        by_id = dict(enumerate(rows, 1))
        for number, box in zip(index.annotation_ids.tolist(), index.file_boxes, strict=True):
            assert box == pytest.approx(by_id[number]["bbox"])
        # The outlines are those of the masks, holes and parts included.
        position = int(np.argmax(np.diff(index.image_instances)))
        for n in range(index.instances(position).start, index.instances(position).stop):
            mask = decode_rle(by_id[int(index.annotation_ids[n])]["segmentation"])
            assert np.array_equal(instance_bitmap(index, n, *mask.shape), mask)


def test_unsure_detections_are_left_out_of_a_training(mask_rcnn_run, shapes, tmp_path):
    assert predict(mask_rcnn_run, shapes / "val", tmp_path / "first") == 0
    scores = sorted(row["score"] for row in read(tmp_path / "first" / "predictions.json"))
    unsure, least = scores[len(scores) // 3], scores[2 * len(scores) // 3]
    options = ["--as-annotations", "coco", "--min-score", str(least), "--unsure-score", str(unsure)]
    assert predict(mask_rcnn_run, shapes / "val", tmp_path / "out", *options) == 0
    index = load_split(tmp_path / "out" / "annotations", "train")
    assert 0 < (~index.crowd).sum() <= sum(score >= least for score in scores)
    assert 0 < index.crowd.sum() <= sum(unsure <= score < least for score in scores)
    options = ["--data.train", tmp_path / "out" / "annotations", "--data.max-instances", "64"]
    assert train("mask_rcnn", shapes, tmp_path / "run", *options) == 0


def test_detections_become_tasks_of_label_studio(mask_rcnn_run, shapes, tmp_path, capsys):
    pictures = tmp_path / "a & b"
    shutil.copytree(shapes / "val", pictures)
    options = ["--as-annotations", "label-studio", "--min-score", "0.05"]
    assert predict(mask_rcnn_run, pictures, tmp_path / "out", *options) == 0
    # It serves what is below its document root, and refuses a storage that is this root itself.
    said = capsys.readouterr().out
    assert f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={tmp_path}:" in said
    assert f"Local Files: {pictures} (" in said
    tasks = read(tmp_path / "out" / "annotations" / "tasks.json")
    names = [task["data"]["image"].removeprefix("/data/local-files/?d=a%20%26%20b/") for task in tasks]
    assert names == sorted(path.name for path in pictures.iterdir())
    interface = ET.parse(tmp_path / "out" / "annotations" / "interface.xml").getroot()
    assert interface.find("Image").get("value") == "$image"
    labels = {label.get("value") for label in interface.find("PolygonLabels[@name='polygonlabels']")}
    predictions = [task["predictions"][0] for task in tasks]
    assert any(prediction["result"] for prediction in predictions)
    for prediction in predictions:
        assert prediction.get("score") == min((region["score"] for region in prediction["result"]), default=None)
        for region in prediction["result"]:
            assert (region["type"], region["from_name"], region["to_name"]) == (
                "polygonlabels",
                "polygonlabels",
                "image",
            )
            assert all(0 <= value <= 100 for point in region["value"]["points"] for value in point)
            assert set(region["value"]["polygonlabels"]) < labels


def object_in_two_parts():
    """A detection of 20 x 10 pixels: a square with a hole, and apart from it a bar."""
    bitmap = np.zeros((10, 20), dtype=np.uint8)
    bitmap[1:8, 1:8] = 1
    bitmap[3:5, 3:5] = 0
    bitmap[2:4, 12:18] = 1
    encoded = coco_mask.encode(np.asfortranarray(bitmap))
    return bitmap, Detections(
        boxes=np.array([[1, 1, 18, 8]], dtype=np.float32),
        scores=np.array([0.75], dtype=np.float32),
        labels=np.array([0]),
        categories={3: "cow"},
        category_ids=np.array([3]),
        size=(10, 20),
        rle=[{**encoded, "counts": encoded["counts"].decode()}],
    )


def test_all_parts_of_an_object_are_one_region_of_label_studio(tmp_path):
    bitmap, found = object_in_two_parts()
    drafts = Drafts(min_score=0.5)
    drafts.add(1, tmp_path / "field.png", found)
    drafts.write(tmp_path / "out", "label-studio")
    (region,) = read(tmp_path / "out" / "tasks.json")[0]["predictions"][0]["result"]
    assert np.array_equal(draw_polygon(np.array(region["value"]["points"]) / 100 * [20, 10]), bitmap)
    assert region["value"]["polygonlabels"] == ["cow"]
    assert (region["original_width"], region["original_height"], region["score"]) == (20, 10, 0.75)


def test_boxes_are_rectangles_of_label_studio(tmp_path):
    _, found = object_in_two_parts()
    drafts = Drafts(min_score=0.5)
    drafts.add(1, tmp_path / "field.png", replace(found, rle=None))
    drafts.write(tmp_path / "out", "label-studio")
    (region,) = read(tmp_path / "out" / "tasks.json")[0]["predictions"][0]["result"]
    assert region["value"].pop("rectanglelabels") == ["cow"]
    assert region["value"] == pytest.approx({"x": 5, "y": 10, "width": 85, "height": 70, "rotation": 0})
    interface = ET.parse(tmp_path / "out" / "interface.xml").getroot()
    assert interface.find(f"RectangleLabels[@name='{region['from_name']}']/Label").get("value") == "cow"


def draw_polygon(points):
    return coco_mask.decode(coco_mask.frPyObjects([points.ravel().tolist()], 10, 20))[..., 0]


def test_keypoints_are_in_the_drafts_of_coco(tmp_path):
    _, found = object_in_two_parts()
    Image.new("RGB", (20, 10)).save(tmp_path / "field.png")
    keypoints = np.array([[[2, 3, 1], [4, 5, 1], [13, 2.5, 1]]], dtype=np.float32)
    drafts = Drafts(min_score=0.5)
    drafts.add(1, tmp_path / "field.png", replace(found, extra={"keypoints": keypoints}, limbs=((0, 1), (1, 2))))
    drafts.write(tmp_path / "out", "coco")
    index = load_split(tmp_path / "out", "train", keypoints=True)
    assert index.skeleton.limbs == ((0, 1), (1, 2))
    assert index.keypoints.tolist() == [[[2, 3, 2], [4, 5, 2], [13, 2.5, 2]]]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--unsure-score", "0.1"], "unsure-score"),
        (["--as-annotations", "coco", "--unsure-score", "0.9"], "Option --unsure-score must be between 0 and min"),
        (["--as-annotations", "voc"], "as-annotations"),
    ],
)
def test_wrong_ways_to_annotate_are_refused(options, words, mask_rcnn_run, shapes, tmp_path, capsys):
    assert predict(mask_rcnn_run, shapes / "val", tmp_path / "out", *options) == 2
    assert words in capsys.readouterr().err
