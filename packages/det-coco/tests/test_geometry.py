"""Boxes, masks and pictures that contradict COCO's form are read as what they are, or refused with the form named."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from det_coco import CocoIndex, DataError, evaluate, ground_truth_of, to_results
from det_coco._extents import polygon_extents, run_extents

WIDTH, HEIGHT = 160, 120
RNG = np.random.default_rng(0)


def split(folder: Path, count: int = 40, masks: str = "polygon") -> dict[str, Any]:
    """A split of objects all over pictures of 160 x 120."""
    folder.mkdir(exist_ok=True)
    images, annotations = [], []
    rng = np.random.default_rng(1)
    for number in range(1, 11):
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": HEIGHT, "width": WIDTH})
    for number in range(count):
        w, h = (int(side) for side in rng.integers(8, 60, 2))
        x, y = (int(rng.integers(0, whole - side + 1)) for whole, side in ((WIDTH, w), (HEIGHT, h)))
        annotations.append(
            {"id": number + 1, "image_id": 1 + number % 10, "category_id": 1, "bbox": [x, y, w, h], "iscrowd": 0}
            | segmentation(masks, x, y, w, h)
        )
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}


def segmentation(masks: str, x: int, y: int, w: int, h: int) -> dict[str, Any]:
    """A triangle with a box of its own; as run lengths a rectangle with a hole."""
    if masks == "polygon":
        return {"segmentation": [[x, y, x + w, y + h // 2, x, y + h]]}
    if masks == "none":
        return {}
    bitmap = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    bitmap[y : y + h, x : x + w] = 1
    bitmap[y + 2 : y + h - 2, x + 2 : x + 5] = 0
    flat = bitmap.reshape(-1) if masks == "rows" else bitmap.T.reshape(-1)
    bounds = np.flatnonzero(np.diff(flat, prepend=0, append=2))
    return {"segmentation": {"size": [HEIGHT, WIDTH], "counts": np.diff(bounds, prepend=0).tolist()}}


def load(content: dict[str, Any], folder: Path) -> CocoIndex:
    folder.mkdir(exist_ok=True)
    (folder / "a.json").write_text(json.dumps(content))
    return CocoIndex.load(folder / "a.json", folder)


def forms(index: CocoIndex) -> list[str]:
    return [remark.message for remark in index.remarks if remark.kind == "form"]


def changed(box: list[float], form: str) -> list[float]:
    x, y, w, h = box
    return {
        "x1, y1, x2, y2": [x, y, x + w, y + h],
        "centre x": [x + w / 2, y + h / 2, w, h],
        "y1, x1": [y, x, y + h, x + w],
        "y, x, height": [y, x, h, w],
        "x, y, width, height": [x, y, w, h],
    }[form]


SCALES = {"in pixels": (1, 1), "as fractions": (1 / WIDTH, 1 / HEIGHT), "in per cent": (100 / WIDTH, 100 / HEIGHT)}
FORMS = ["x1, y1, x2, y2", "centre x", "x, y, width, height"]


def scaled(numbers: list[float], scale: str) -> list[float]:
    return [value * SCALES[scale][place % 2] for place, value in enumerate(numbers)]


@pytest.mark.parametrize("masks", ["polygon", "columns"])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("form", FORMS)
def test_boxes_in_other_forms_are_read_by_the_masks(tmp_path, form, scale, masks):
    content = split(tmp_path, masks=masks)
    expected = load(content, tmp_path)
    assert forms(expected) == []
    for annotation in content["annotations"]:
        annotation["bbox"] = scaled(changed(annotation["bbox"], form), scale)
    index = load(content, tmp_path)
    same_data(index, expected)
    if form != FORMS[-1] or scale != "in pixels":
        (message,) = forms(index)
        assert message.startswith(f"boxes are {form}")
        assert f" {scale}" in message


@pytest.mark.parametrize("masks", ["polygon", "none"])
@pytest.mark.parametrize("form", ["y1, x1", "y, x, height"])
def test_boxes_by_rows_are_read_or_refused_with_the_form_named(tmp_path, form, masks):
    """Refused where some were dropped before, as they lay outside their picture."""
    content = split(tmp_path, masks=masks)
    right = {annotation["id"]: annotation["bbox"] for annotation in content["annotations"]}
    for annotation in content["annotations"]:
        annotation["bbox"] = changed(annotation["bbox"], form)
    with pytest.raises(DataError, match=f"boxes are {form}.* in pixels, as most objects show. Write boxes as x, y"):
        load(content, tmp_path)
    inside = [a for a in content["annotations"] if a["bbox"][1] < HEIGHT]
    content["annotations"] = inside
    index = load(content, tmp_path)
    for annotation in inside:
        assert annotation["id"] in index.annotation_ids
        box = index.boxes[index.annotation_ids == annotation["id"]][0]
        assert box.tolist() == changed(right[annotation["id"]], "x1, y1, x2, y2")


@pytest.mark.parametrize("masks", ["polygon", "none"])
@pytest.mark.parametrize(
    "form",
    [lambda x, y, w, h: [x + w, y + h, -w, -h], lambda x, y, w, h: [1000 * x / WIDTH + 160, y, w, h]],
    ids=["negative", "beside"],
)
def test_boxes_that_lie_outside_are_refused_where_most_do(tmp_path, form, masks):
    content = split(tmp_path, masks=masks)
    for annotation in content["annotations"][:30]:
        annotation["bbox"] = form(*annotation["bbox"])
    with pytest.raises(
        DataError, match=r"30 of 40 boxes lie outside .*negative sides \(annotations 1, 2, .*Write boxes"
    ):
        load(content, tmp_path)
    for annotation in content["annotations"][:30]:
        annotation["bbox"][2:] = 0, 0  # what exporters make of points and lines
    assert load(content, tmp_path).num_instances == 10


def same_data(index: CocoIndex, expected: CocoIndex) -> None:
    np.testing.assert_allclose(index.boxes, expected.boxes, atol=1e-3)
    np.testing.assert_allclose(index.file_boxes, expected.file_boxes, atol=1e-9)
    np.testing.assert_allclose(index.areas, expected.areas)
    np.testing.assert_allclose(index.masks.points, expected.masks.points, atol=1e-9)
    np.testing.assert_array_equal(index.masks.runs, expected.masks.runs)
    assert index.annotation_ids.tolist() == expected.annotation_ids.tolist()
    rows = []
    for image in expected.image_ids.tolist():
        part = expected.instances(expected.position(image))
        masks = ground_truth_of(expected, image).masks
        codes = [coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]
        boxes, labels = expected.boxes[part], expected.labels[part]
        rows += to_results(expected, image, boxes, np.full(len(boxes), 0.5), labels, codes if codes else None)
    tasks = ("bbox", "segm") if expected.has_masks else ("bbox",)
    for values in evaluate(index, rows, tasks).values():
        assert values["AP"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("form", "scale"), [("x1, y1, x2, y2", "in pixels"), ("centre x", "in pixels"), ("centre x", "as fractions"),
                        ("x, y, width, height", "as fractions"), ("x, y, width, height", "in per cent"),
                        ("centre x", "in per cent")],
)  # fmt: skip
def test_boxes_without_masks_are_read_by_the_bounds_of_the_pictures(tmp_path, form, scale):
    content = split(tmp_path, count=200, masks="none")
    # In pictures of more than 150 pixels, and with objects in all corners.
    for image in content["images"]:
        image |= {"width": 320, "height": 240}
        Image.new("RGB", (320, 240)).save(tmp_path / image["file_name"])
    for annotation in content["annotations"]:
        annotation["bbox"] = [2 * number for number in annotation["bbox"]]
    content["annotations"][0]["bbox"] = [0, 0, 320, 240]
    content["annotations"][1]["bbox"] = [0, 0, 40, 40]
    content["annotations"][2]["bbox"] = [270, 180, 50, 60]
    expected = load(content, tmp_path)
    factors = {"in pixels": (1, 1), "as fractions": (1 / 320, 1 / 240), "in per cent": (100 / 320, 100 / 240)}[scale]
    for annotation in content["annotations"]:
        box = changed(annotation["bbox"], form)
        annotation["bbox"] = [value * factors[place % 2] for place, value in enumerate(box)]
    index = load(content, tmp_path)
    same_data(index, expected)
    assert forms(index)[0].startswith(f"boxes are {form}")


@pytest.mark.parametrize("scale", ["as fractions", "in per cent"])
def test_polygons_in_another_scale_than_the_boxes(tmp_path, scale):
    content = split(tmp_path)
    expected = load(content, tmp_path)
    for annotation in content["annotations"]:
        annotation["segmentation"] = [scaled(annotation["segmentation"][0], scale)]
    index = load(content, tmp_path)
    same_data(index, expected)
    assert "polygons are" in forms(index)[0]


def test_boxes_and_polygons_as_fractions(tmp_path):
    content = split(tmp_path)
    expected = load(content, tmp_path)
    for annotation in content["annotations"]:
        annotation["bbox"] = scaled(changed(annotation["bbox"], "centre x"), "as fractions")
        annotation["segmentation"] = [scaled(annotation["segmentation"][0], "as fractions")]
    index = load(content, tmp_path)
    same_data(index, expected)
    assert forms(index)[0].startswith("boxes are centre x, centre y, width, height, and they and the polygons are as")


@pytest.mark.parametrize("change", ["swapped", "relative"])
def test_polygons_in_another_order_or_place(tmp_path, change):
    content = split(tmp_path)
    expected = load(content, tmp_path)
    for annotation in content["annotations"]:
        (points,) = annotation["segmentation"]
        pairs = np.array(points).reshape(-1, 2)
        pairs = pairs[:, ::-1] if change == "swapped" else pairs - annotation["bbox"][:2]
        annotation["segmentation"] = [pairs.reshape(-1).tolist()]
    same_data(load(content, tmp_path), expected)


def test_run_lengths_along_the_rows(tmp_path):
    expected = load(split(tmp_path, masks="columns"), tmp_path)
    index = load(split(tmp_path, masks="rows"), tmp_path)
    assert forms(index)[0].startswith("run lengths go along the rows")
    same_data(index, expected)


def test_one_object_is_enough_where_its_mask_fits_exactly(tmp_path):
    content = split(tmp_path, count=1)
    x, y, w, h = content["annotations"][0]["bbox"]
    content["annotations"][0]["bbox"] = [x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT]
    assert load(content, tmp_path).boxes.tolist() == [[x, y, x + w, y + h]]


def test_fractions_of_a_form_that_cannot_be_told_are_refused(tmp_path):
    content = split(tmp_path, count=1, masks="none")
    content["annotations"][0]["bbox"] = [0.4, 0.4, 0.3, 0.3]
    with pytest.raises(
        DataError, match=r"cannot be told whether boxes are x, y, .* as fractions .*, or boxes are centre"
    ):
        load(content, tmp_path)


def few(folder: Path, boxes: list[list[float]], width: int = WIDTH, height: int = HEIGHT) -> dict[str, Any]:
    """A split of objects without masks, each in a picture of its own."""
    folder.mkdir(exist_ok=True)
    images, annotations = [], []
    for number, box in enumerate(boxes, 1):
        Image.new("RGB", (width, height)).save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": height, "width": width})
        annotations.append({"id": number, "image_id": number, "category_id": 1, "bbox": box, "iscrowd": 0})
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}


@pytest.mark.parametrize("digits", [None, 6, 2])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("size", "boxes"),
    [
        ((160, 120), [[74, 19, 55, 47], [91, 71, 33, 29], [7, 33, 101, 17]]),
        ((640, 480), [[101, 19, 55, 47], [301, 200, 333, 171], [3, 7, 11, 13]]),
        ((1920, 1080), [[1201, 599, 77, 91], [5, 17, 1801, 1011], [331, 333, 307, 401], [7, 1, 111, 1013]]),
    ],
)
def test_per_cent_of_few_boxes_are_read_where_they_make_whole_pixels(tmp_path, size, boxes, form, digits):
    width, height = size
    odd = [[n * 100 / size[k % 2] for k, n in enumerate(changed(box, form))] for box in boxes]
    content = few(tmp_path, [[n if digits is None else round(n, digits) for n in box] for box in odd], width, height)
    if form == "centre x" and digits == 2 and width == 1920:
        assert doubts(load(content, tmp_path))[0].startswith("all 4 boxes lie within the first 100 pixels")
        return
    index = load(content, tmp_path)
    np.testing.assert_allclose(index.file_boxes, boxes, atol=0.2)
    (message,) = forms(index)
    assert message.startswith(f"boxes are {form}")
    assert " in per cent of the picture, as boxes" in message


def test_per_cent_of_one_box_are_refused_where_they_may_be_corners(tmp_path):
    with pytest.raises(DataError, match=r"told whether boxes are x, y, .* in per cent .*, or boxes are x1, y1, x2, y2"):
        load(few(tmp_path, [[33.125, 15.8333, 34.375, 39.1667]]), tmp_path)
    content = few(tmp_path, [[54 / 1.6, 19 / 1.2, 54 / 1.6, 46 / 1.2]])
    np.testing.assert_allclose(load(content, tmp_path).file_boxes, [[54, 19, 54, 46]])


def doubts(index: CocoIndex) -> list[str]:
    return [remark.message for remark in index.remarks if remark.kind == "form_doubtful"]


def test_boxes_that_may_be_in_per_cent_are_said(tmp_path):
    """Whole numbers in the first 100 pixels of every picture: they say nothing more."""
    boxes = [[10, 20, 30, 40], [50, 45, 40, 50], [5, 50, 90, 20], [70, 60, 25, 35]]
    index = load(few(tmp_path, boxes, 640, 480), tmp_path)
    np.testing.assert_array_equal(index.file_boxes, boxes)
    (message,) = doubts(index)
    assert message.startswith(
        "all 4 boxes lie within the first 100 pixels of pictures of up to 640 x 480, as boxes in per"
    )
    assert doubts(load(few(tmp_path / "small", boxes, 110, 100), tmp_path / "small")) == []
    boxes[2] = [300, 50, 90, 20]
    assert doubts(load(few(tmp_path / "far", boxes, 640, 480), tmp_path / "far")) == []


@pytest.mark.parametrize("part", [2, 3, 4, 10])
def test_boxes_of_pictures_that_were_scaled_are_no_per_cent(tmp_path, part):
    """Halves and thirds of pixels in the corner of a picture of 300 x 300 are what they are."""
    boxes = [[(10 + 7 * n) / part, (5 + 3 * n) / part, (40 + n) / part, (50 - n) / part] for n in range(9)]
    index = load(few(tmp_path, boxes, 300, 300), tmp_path)
    np.testing.assert_allclose(index.file_boxes, boxes)
    assert forms(index) == []


def test_few_boxes_as_corners_are_said(tmp_path):
    boxes = [[100, 50, 150, 110], [20, 30, 60, 70], [80, 10, 155, 60]]
    index = load(few(tmp_path, boxes), tmp_path)
    assert index.boxes.tolist()[0] == [100, 50, 160, 120]
    (message,) = doubts(index)
    assert message.startswith("2 boxes of 3 reach outside the picture, but all lie inside if they are x1, y1, x2, y2")
    assert message.endswith(
        "They were read as x, y, width, height in pixels; if they are something else, rewrite them."
    )
    boxes[1] = [100, 90, 60, 30]
    assert doubts(load(few(tmp_path, boxes), tmp_path)) == []


@pytest.mark.parametrize("box", [[74, 49, 55, 47], [75, 49, 54, 47]])
def test_whole_pixels_tell_centres_from_corners_of_fractions(tmp_path, box):
    for form in ("x, y, width, height", "centre x"):
        content = few(tmp_path / form[:1], [scaled(changed(box, form), "as fractions")])
        index = load(content, tmp_path / form[:1])
        np.testing.assert_allclose(index.file_boxes, [box], atol=1e-6)


def test_masks_beside_all_boxes_are_refused_and_beside_some_are_said(tmp_path):
    content = split(tmp_path)
    for number, annotation in enumerate(content["annotations"]):
        annotation["bbox"] = [0, 0, 12, 12] if number % 2 else [148, 0, 12, 12]
        y = 40 + number
        annotation["segmentation"] = [[40, y, 90, y, 90, y + 30]]
    with pytest.raises(DataError, match=r"40 masks of 40 objects lie beside their boxes .*Write boxes as x, y"):
        load(content, tmp_path)
    content = split(tmp_path)
    content["annotations"][3] |= {"bbox": [0, 0, 9, 9], "segmentation": [[50, 50, 60, 50, 60, 60]]}
    (remark,) = load(content, tmp_path).remarks[-1:]
    assert (remark.kind, remark.annotation_ids) == ("mask_beside_box", (4,))


def test_swapped_sizes_are_refused(tmp_path):
    content = split(tmp_path, count=3, masks="none")
    for image in content["images"]:
        image["height"], image["width"] = image["width"], image["height"]
    with pytest.raises(DataError, match="height and width of its images look swapped, as 8 pictures show"):
        load(content, tmp_path)
    content["images"][0] |= {"height": HEIGHT, "width": WIDTH}
    assert len(load(content, tmp_path)) == 10


def test_a_few_objects_that_reach_outside_prove_nothing(tmp_path):
    content = split(tmp_path, count=60, masks="none")
    content["annotations"][0]["bbox"] = [100, 50, 150, 110]
    index = load(content, tmp_path)
    assert forms(index) == []
    assert index.boxes[index.annotation_ids == 1].tolist() == [[100, 50, 160, 120]]


def test_photographs_are_in_cocos_form(coco_mini, pennfudan):
    for root in (coco_mini, pennfudan):
        for file in sorted((root / "annotations").glob("instances_*.json")):
            index = CocoIndex.load(file, root, check_images=False)
            assert not {"form", "mask_beside_box"} & {remark.kind for remark in index.remarks}


@pytest.mark.parametrize("by_rows", [False, True])
def test_boxes_around_runs_are_those_around_their_pixels(tmp_path, by_rows):
    index = load(split(tmp_path, masks="rows" if by_rows else "columns"), tmp_path)
    expected = load(split(tmp_path, masks="polygon"), tmp_path)
    if by_rows:  # which the reader has put right
        heights, widths = np.full(len(index.labels), WIDTH), np.full(len(index.labels), HEIGHT)
        found = run_extents(index.masks, heights, widths, by_rows=True)[:, [1, 0, 3, 2]]
    else:
        found = run_extents(index.masks, np.full(len(index.labels), HEIGHT), np.full(len(index.labels), WIDTH))
    np.testing.assert_array_equal(found, expected.boxes)
    np.testing.assert_array_equal(polygon_extents(expected.masks), expected.boxes)
    assert np.isnan(polygon_extents(index.masks)).all()
