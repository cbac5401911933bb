"""Situations from public bug reports, each with the value that is right."""

import json
import logging
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from det_coco import (
    Augmentation,
    BatchShape,
    CocoIndex,
    DataError,
    Detections,
    Protocol,
    Resize,
    evaluate,
    ground_truth_of,
    precision_recall,
    train_loader,
)

BASE = {
    "images": [{"id": 1, "file_name": "im001.png", "height": 120, "width": 160}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [54, 19, 54, 46], "area": 2484, "iscrowd": 0,
         "segmentation": [[54, 19, 108, 19, 108, 65, 54, 65]]},
    ],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
}  # fmt: skip


@pytest.fixture
def base() -> dict[str, Any]:
    return deepcopy(BASE)


def perfect(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Results equal to the ground truth, with score 0.9."""
    return [
        {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 0.9,
         "segmentation": a["segmentation"]}
        for a in content["annotations"]
    ]  # fmt: skip


def six_objects(content: dict[str, Any]) -> None:
    content["images"].append({"id": 2, "file_name": "im002.png", "height": 120, "width": 160})
    (template,) = content["annotations"]
    content["annotations"] = []
    for n in range(6):
        x, y = 20 * n, 10 + n
        content["annotations"].append(
            {**template, "id": n + 1, "image_id": 1 + n % 2, "category_id": 1 + n % 3 % 2, "bbox": [x, y, 15, 30],
             "area": 450, "segmentation": [[x, y, x + 15, y, x + 15, y + 30, x, y + 30]]}
        )  # fmt: skip


@pytest.mark.parametrize(
    "ids",
    [
        [0, 1, 2, 3, 4, 5], [-1, -2, -3, -4, -5, -6], [7, 7, 7, 7, 7, 7], [10**30, 2**63, 1, 2, 3, 4],
        ["a", "b", "c", "", "a" * 999, "0"], [None, 1.5, True, [1], {}, 0],
    ],
)  # fmt: skip
def test_evaluation_does_not_depend_on_annotation_ids(base, write, ids):
    six_objects(base)
    for annotation, number in zip(base["annotations"], ids, strict=True):
        annotation["id"] = number
    metrics = evaluate(CocoIndex.load(*write(base)), perfect(base))
    assert metrics["bbox"]["AP"] == metrics["segm"]["AP"] == pytest.approx(1)


def test_evaluation_works_without_annotation_ids(base, write):
    del base["annotations"][0]["id"]
    index = CocoIndex.load(*write(base))
    assert index.annotation_ids.tolist() == [0]
    assert evaluate(index, perfect(base))["bbox"]["AP"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [float("nan")] * 4}, "'bbox' of result 1 must be 4 finite numbers"),
        ({"bbox": [1, 2, float("inf"), 4]}, "'bbox' of result 1 must be 4 finite numbers"),
        ({"bbox": [60, 60, -6, 46]}, r"result 1 \(image 1\) has a negative width or height: \[60.0, 60.0, -6.0"),
        ({"bbox": [60, 60, 6, -1e-3]}, r"'bbox' of result 1 \(image 1\) has a negative width or height"),
        ({"bbox": [True, 1, 2, 3]}, r"'bbox' of result 1 must be 4 finite numbers"),
        ({"bbox": {1, 2, 3, 4}}, r"'bbox' of result 1 must be 4 finite numbers, got \{1, 2, 3, 4\}"),
        ({"bbox": {1: 2, 3: 4, 5: 6, 7: 8}}, "'bbox' of result 1 must be 4 finite numbers, got an object with"),
        ({"score": True}, "'score' of result 1 must be a finite number, got True"),
        ({"image_id": True}, "'image_id' of result 1 must be a finite number, got True"),
        ({"category_id": 1.5}, "'category_id' of result 1 must be a whole number, got 1.5"),
        ({"segmentation": {"size": [0, 0], "counts": ""}}, r"another size .* result 1 \(image 1\): \[0, 0\]"),
        ({"segmentation": {"size": [0, 0], "counts": []}}, r"another size .* result 1 \(image 1\): \[0, 0\]"),
        ({"segmentation": np.zeros((0, 0))}, r"another size .* result 1 \(image 1\): \[0, 0\]"),
        ({"score": float("nan")}, "'score' of result 1 must be a finite number"),
        ({"bbox": [1, 2, 3, 4, 5]}, "'bbox' of result 1 must be 4 finite numbers"),
        ({"bbox": "1234"}, "'bbox' of result 1 must be 4 finite numbers, got '1234'"),
        ({"bbox": None}, "'bbox' of result 1 must be 4 finite numbers, got None"),
        ({"score": "0.9"}, "'score' of result 1 must be a finite number, got '0.9'"),
        ({"score": None}, "'score' of result 1 must be a finite number, got None"),
        ({"image_id": "1"}, "'image_id' of result 1 must be a finite number, got '1'"),
        ({"image_id": 1.7}, "'image_id' of result 1 must be a whole number, got 1.7"),
        ({"image_id": float("nan")}, "'image_id' of result 1 must be a finite number, got nan"),
        ({"image_id": 5}, r"Result 1: .* has no image with id 5"),
        ({"image_id": 5, "segmentation": {"size": [1, 1], "counts": "1"}}, r"the images of .* image 5 \(result 1\)"),
        ({"category_id": 0}, r"lacks the category ids of 1 result, .* 0 \(result 1\); it has 1, 2"),
        ({"segmentation": "PPYo1"}, "'segmentation' of result 1 must be a run-length code .* got 'PPYo1'"),
        ({"segmentation": [[1, 2]]}, "'segmentation' of result 1 must be a run-length code"),
        ({"segmentation": {"size": [120, 160]}}, "'segmentation' of result 1 must .* an object with the keys size"),
        ({"segmentation": {"counts": "PT2"}}, "'segmentation' of result 1 must .* an object with the keys counts"),
        ({"segmentation": {"size": [60, 80], "counts": [4800]}}, r"another size .* result 1 \(image 1\): \[60, 80\]"),
        ({"segmentation": {"size": [120, 160], "counts": "11"}}, "result 1 .* covers .* pixels"),
        ({"segmentation": {"size": [120, 160], "counts": [19201]}}, "result 1 .* covers 19201 pixels"),
        ({"segmentation": {"size": [120, 160], "counts": "\x01"}}, "code of result 1 .* cannot be read"),
        ({"segmentation": {"size": [120, 160], "counts": [19201, -1]}}, "'segmentation' of result 1 must be a run"),
        ({"segmentation": [[1, float("nan"), 9, 1, 9, 9]]}, "'segmentation' of result 1 must be a run"),
        ({"segmentation": [[0, 0, 160, 120] * 20000]}, "Result 1: the outline of its mask has 6,400,000 pixels"),
        ({"segmentation": np.ones((60, 80))}, r"another size .* result 1 \(image 1\): \[60, 80\]"),
        ({"segmentation": np.ones((2, 120, 160))}, "'segmentation' of result 1 must be a run"),
    ],
)  # fmt: skip
def test_wrong_rows_are_named(base, write, change, message):
    rows = perfect(base) * 3
    rows[1] = {**rows[1], **change}
    with pytest.raises(DataError, match=message):
        evaluate(CocoIndex.load(*write(base)), rows)


@pytest.mark.parametrize("form", ["rows", "arrays"])
def test_boxes_that_pycocotools_takes_are_taken(base, write, form):
    """Of no width, wholly outside, with scores beyond 0 and 1."""
    rows = perfect(base)
    odd = [([60, 60, 0, 0], 1.5), ([500, 500, 10, 10], -2), ([-30, -30, 10, 10], 0.95), ([0, 0, 9999, 9999], 0.99)]
    rows += [{**rows[0], "bbox": box, "score": score} for box, score in odd]
    index = CocoIndex.load(*write(base))
    results = rows if form == "rows" else Detections.from_rows(index, rows)
    assert evaluate(index, results)["bbox"]["AP"] == pytest.approx(0.25)  # the fourth best


@pytest.mark.parametrize("code", ["\x01", "11", "PPYo1"])
def test_masks_without_boxes_are_checked_before_they_are_measured(base, write, code):
    whole = coco_mask.encode(np.ones((120, 160), dtype=np.uint8, order="F"))
    masks = whole, {"size": [120, 160], "counts": code}
    rows = [{"image_id": 1, "category_id": 1, "score": 0.9, "segmentation": mask} for mask in masks]
    with pytest.raises(DataError, match=r"code of result 1 \(image 1\) (cannot be read|covers)"):
        evaluate(CocoIndex.load(*write(base)), rows, ["bbox"])


@pytest.mark.parametrize("form", ["x1, y1, x2, y2", "as fractions", "in per cent", None])
def test_results_in_another_form_are_said(base, write, caplog, form):
    six_objects(base)
    index = CocoIndex.load(*write(base))
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(40):
        w, h = rng.integers(20, 50, 2).tolist()
        x, y = int(rng.integers(60, 160 - w)), int(rng.integers(50, 120 - h))
        box = [x, y, x + w, y + h] if form == "x1, y1, x2, y2" else [x, y, w, h]
        if form == "as fractions":
            box = [x / 160, y / 120, w / 160, h / 120]
        if form == "in per cent":
            box = [x / 1.6, y / 1.2, w / 1.6, h / 1.2]
        rows.append({"image_id": int(rng.integers(1, 3)), "category_id": 1, "bbox": box, "score": 0.5})
    with caplog.at_level(logging.WARNING, "det_coco"):
        evaluate(index, rows, ["bbox"])
    said = [record.getMessage() for record in caplog.records if "look as if they were" in record.getMessage()]
    assert len(said) == (form is not None)
    assert form is None or form in said[0]


@pytest.mark.parametrize("key", ["image_id", "category_id", "bbox", "score", "segmentation"])
def test_missing_keys_are_named(base, write, key):
    rows = [*perfect(base), *perfect(base)]
    del rows[1][key]
    message = "without 'segmentation' cannot be evaluated" if key == "segmentation" else f"Result 1 has no '{key}'"
    with pytest.raises(DataError, match=message):
        evaluate(CocoIndex.load(*write(base)), rows)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([3], "Result 0 must be an object .* got 3"),
        ([[1, 2]], r"Result 0 must be an object .* got \[1, 2\]"),
        (["x" * 9999], "Result 0 must be an object .* got 'xxx"),
        ({"annotations": []}, "Results must be a list of rows"),
        ("rows.json", "Results must be a list of rows"),
        (None, "Results must be a list of rows"),
    ],
)
def test_what_is_no_list_of_rows_is_refused(base, write, rows, message):
    with pytest.raises(DataError, match=message) as caught:
        evaluate(CocoIndex.load(*write(base)), rows)
    assert len(str(caught.value)) < 300


def test_rows_in_other_forms_are_read(base, write):
    """Generators, numpy numbers, polygons, lists of run lengths, bytes."""
    index = CocoIndex.load(*write(base))
    (row,) = perfect(base)
    (mask,) = ground_truth_of(index, 1).masks
    code = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    flat = mask.T.reshape(-1)
    bounds = np.concatenate(([0], np.flatnonzero(np.diff(flat.astype(int))) + 1, [flat.size]))
    forms = [row["segmentation"], code, {**code, "counts": code["counts"].decode()}]
    forms.append({"size": [120, 160], "counts": np.diff(bounds).tolist()})
    points = np.array(row["segmentation"])
    forms += [
        mask,
        mask[None].astype(np.uint8),
        [points[0]],
        points.reshape(1, 4, 2).tolist(),
        points.reshape(4, 2).tolist(),
    ]
    for form in forms:
        other = {
            **row, "image_id": np.int64(1), "category_id": 1.0, "score": np.float32(0.5), "bbox": np.array(row["bbox"]),
            "segmentation": form,
        }  # fmt: skip
        before = {key: str(value) for key, value in other.items()}
        metrics = evaluate(index, (r for r in [other]))
        assert metrics["bbox"]["AP"] == metrics["segm"]["AP"] == pytest.approx(1)
        assert {key: str(value) for key, value in other.items()} == before


def test_rows_whose_masks_are_null_have_boxes(base, write):
    index = CocoIndex.load(*write(base))
    rows = [{**perfect(base)[0], "segmentation": None}]
    assert evaluate(index, rows, "bbox")["bbox"]["AP"] == pytest.approx(1)
    with pytest.raises(DataError, match="Results without 'segmentation' cannot be evaluated as masks"):
        evaluate(index, rows)


def test_polygons_of_rows_are_cut_off_far_outside(base, write):
    """A row of few numbers never takes more memory than its image explains."""
    index = CocoIndex.load(*write(base))
    (row,) = perfect(base)
    row["segmentation"] = [[54, 19, 1e9, 19, 1e9, 65, 54, 65]]
    found = Detections.from_rows(index, [row]).rles()[0]
    assert coco_mask.area(found) == (160 - 54) * (65 - 19)
    row["segmentation"] = [[5e8, 5e8, 6e8, 5e8, 6e8, 6e8]]
    assert coco_mask.area(Detections.from_rows(index, [row]).rles()[0]) == 0


@pytest.mark.parametrize(
    "area", [-2484, "2484", None, float("nan"), float("inf"), True, [2484], 0, 160 * 120 + 1, 1e12]
)
def test_an_area_that_is_none_is_measured(base, write, caplog, area):
    base["annotations"][0]["area"] = area
    with caplog.at_level(logging.WARNING, "det_coco"):
        index = CocoIndex.load(*write(base))
    assert index.areas.tolist() == [54 * 46]
    assert ("the 'area' of 1 annotation is no number above 0, or larger" in caplog.text) == (area is not None)
    metrics = evaluate(index, perfect(base))
    assert metrics["bbox"]["AP"] == metrics["bbox"]["APm"] == metrics["segm"]["APm"] == pytest.approx(1)


@pytest.mark.parametrize("form", ["polygon", "compressed", "plain"])
def test_a_missing_area_is_that_of_the_mask(base, write, form):
    """A diagonal bar is small, though its box is not."""
    bar = np.zeros((120, 160), dtype=np.uint8)
    for n in range(98):
        bar[n : n + 8, n + 10] = 1
    code = coco_mask.encode(np.asfortranarray(bar))
    (annotation,) = base["annotations"]
    del annotation["area"]
    annotation["bbox"] = [10, 0, 98, 105]
    if form == "polygon":
        annotation["segmentation"] = [[10, 0, 108, 97, 108, 105, 10, 8]]
    elif form == "compressed":
        annotation["segmentation"] = {"size": [120, 160], "counts": code["counts"].decode()}
    else:
        flat = bar.T.reshape(-1)
        bounds = np.concatenate(([0], np.flatnonzero(np.diff(flat.astype(int))) + 1, [flat.size]))
        counts = np.diff(bounds).tolist()
        annotation["segmentation"] = {"size": [120, 160], "counts": [0, *counts] if flat[0] else counts}
    index = CocoIndex.load(*write(base))
    assert index.areas[0] == ground_truth_of(index, 1).masks[0].sum() == pytest.approx(784, abs=8)
    metrics = evaluate(index, perfect(base))
    for iou_type in ("bbox", "segm"):
        assert metrics[iou_type]["APs"] == pytest.approx(1)
        assert metrics[iou_type]["APl"] == metrics[iou_type]["APm"] == -1


def test_two_categories_of_one_name_stay_two(base, write):
    base["categories"][1]["name"] = "cat"
    base["annotations"].append({**base["annotations"][0], "id": 2, "category_id": 2})
    metrics = evaluate(CocoIndex.load(*write(base)), perfect(base)[:1])["bbox"]
    assert metrics["AP/cat (1)"] == pytest.approx(1)
    assert metrics["AP/cat (2)"] == 0
    assert "AP/cat" not in metrics


def many(content: dict[str, Any], count: int) -> None:
    (template,) = content["annotations"]
    places = [(10 * (n % 15), 10 * (n // 15)) for n in range(count)]
    content["annotations"] = [
        {**template, "id": n + 1, "bbox": [x, y, 8, 8], "area": 64,
         "segmentation": [[x, y, x + 8, y, x + 8, y + 8, x, y + 8]]}
        for n, (x, y) in enumerate(places)
    ]  # fmt: skip


def test_more_objects_than_detections_that_count(base, write, caplog):
    many(base, 150)
    index = CocoIndex.load(*write(base))
    with caplog.at_level(logging.WARNING, "det_coco"):
        limited = evaluate(index, perfect(base))["bbox"]
        precision_recall(index, Detections.from_rows(index, perfect(base)), "segm")
    assert limited["AP"] == pytest.approx(0.663, abs=1e-3)
    assert caplog.text.count("more than 100 objects of one class (up to 150, in image 1)") == 1
    assert caplog.records[-1].getMessage().endswith("Raise max_detections to count more.")
    caplog.clear()
    with caplog.at_level(logging.WARNING, "det_coco"):
        full = evaluate(index, perfect(base), protocol=Protocol(max_detections=150))
    assert not caplog.records
    assert full["bbox"]["AP"] == full["bbox"]["APs"] == full["segm"]["AP"] == full["bbox"]["AR150"] == pytest.approx(1)


def test_ignored_objects_are_neutral(base, write, caplog):
    base["annotations"].append({**base["annotations"][0], "id": 2, "bbox": [0, 80, 30, 30], "ignore": 1,
                                "segmentation": [[0, 80, 30, 80, 30, 110, 0, 110]]})  # fmt: skip
    with caplog.at_level(logging.WARNING, "det_coco"):
        index = CocoIndex.load(*write(base))
    assert "1 object marked 'ignore'" in caplog.text
    assert index.crowd.tolist() == [False, True]
    for rows in (perfect(base), perfect(base)[:1], [{**perfect(base)[1], "score": 1.0}, perfect(base)[0]]):
        metrics = evaluate(index, rows)
        for iou_type in ("bbox", "segm"):
            assert metrics[iou_type]["AP"] == pytest.approx(1)
            assert metrics[iou_type]["AR100"] == 1
    shape = BatchShape(buckets=((128, 160),), max_instances=4)
    loader = train_loader(index, augmentation=Augmentation(resize=Resize(shortest=(120,))), shape=shape, batch_size=1)
    assert next(iter(loader))["crowd"].tolist() == [[False, True, False, False]]
    base["annotations"][1]["ignore"] = "yes"
    with pytest.raises(DataError, match="'ignore' of annotation 2 must be 0 or 1, got 'yes'"):
        CocoIndex.load(*write(base))


def test_an_unusual_share_of_crowd_is_said(base, write, caplog):
    many(base, 5)
    for annotation in base["annotations"][1:]:
        annotation["iscrowd"] = 1
    with caplog.at_level(logging.WARNING, "det_coco"):
        CocoIndex.load(*write(base))
    assert "4 of 5 objects are marked 'iscrowd', so that they are not learnt. Some exporters" in caplog.text


def test_masks_are_not_evaluated_against_boxes(base, write, caplog):
    six_objects(base)
    rows = perfect(base)
    del base["annotations"][0]["segmentation"]
    index = CocoIndex.load(*write(base))
    with caplog.at_level(logging.WARNING, "det_coco"):
        assert evaluate(index, rows)["segm"]["AP"] == pytest.approx(1)
        assert evaluate(index, rows[1:])["segm"]["AP"] == pytest.approx(1)
        assert evaluate(index, rows[1:])["bbox"]["AP"] < 0.9
    assert "1 of 6 objects has no mask and is left out of the evaluation of masks" in caplog.text
    for annotation in base["annotations"]:
        annotation["segmentation"] = []
    index = CocoIndex.load(*write(base))
    with pytest.raises(DataError, match="has no masks to evaluate masks against"):
        evaluate(index, rows)
    assert evaluate(index, rows, ["bbox"])["bbox"]["AP"] == pytest.approx(1)


@pytest.mark.parametrize(
    "segmentation",
    [
        [[10, 10], [70, 10], [10, 70]],
        [[[10, 10], [70, 10], [10, 70]]],
        [[10, 70, 10], [10, 10, 70]],
    ],
    ids=["pairs", "nested pairs", "a row of x and a row of y"],
)
def test_points_in_other_forms_are_read(base, write, segmentation):
    triangle = [[10, 10, 70, 10, 10, 70]]
    base["annotations"][0] |= {"bbox": [10, 10, 60, 60], "segmentation": triangle, "area": 1800}
    expected = CocoIndex.load(*write(base))
    rows = perfect(base)
    base["annotations"][0]["segmentation"] = segmentation
    index = CocoIndex.load(*write(base))
    np.testing.assert_array_equal(ground_truth_of(index, 1).masks, ground_truth_of(expected, 1).masks)
    assert evaluate(index, rows)["segm"]["AP"] == pytest.approx(1)
    rows[0]["segmentation"] = [[10, 10, 70, 10, 70, 70, 10, 70]]
    assert evaluate(index, rows)["segm"]["AP"] < 0.2


def test_two_polygons_are_not_two_rows(base, write):
    two = [[10, 10, 30, 10, 10, 30], [60, 60, 90, 60, 60, 90]]
    base["annotations"][0] |= {"bbox": [10, 10, 80, 80], "segmentation": two}
    index = CocoIndex.load(*write(base))
    assert index.polygon_counts.tolist() == [2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [1.0] * 20000}, "got a list of 20,000 numbers"),
        ({"bbox": "x" * 20000}, "got 'xxx"),
        ({"segmentation": "x" * 20000}, "got 'xxx"),
        ({"segmentation": [["x" * 20000] * 6]}, "a polygon with something that is not a number"),
        ({"segmentation": [[1, 2, 3, 4, 5, 6], "x" * 20000]}, "got a list with 'xxx"),
        ({"iscrowd": "x" * 20000}, "must be 0 or 1, got 'xxx"),
        ({"image_id": ["x"] * 20000}, "got a list of 20,000 texts"),
        ({"id": "x" * 20000, "bbox": 3}, r"annotation x+\.\.\.: 'bbox' must be"),
    ],
)
def test_no_message_quotes_a_file(base, write, change, message):
    base["annotations"][0] |= change
    with pytest.raises(DataError, match=message) as caught:
        CocoIndex.load(*write(base))
    assert len(str(caught.value)) < 600


def crowded(content: dict[str, Any]) -> None:
    """A picture with three masks of 100 x 100 chequered pixels, given as run lengths."""
    chequers = np.indices((120, 160)).sum(axis=0) % 2 * (np.arange(160) < 100)
    code = coco_mask.encode(np.asfortranarray(chequers.astype(np.uint8)))
    code["counts"] = code["counts"].decode()
    content["annotations"] = [
        {**content["annotations"][0], "id": n, "bbox": [0, 0, 100, 120], "segmentation": code} for n in range(3)
    ]


def test_all_limits_are_told_at_once(base, write):
    crowded(base)
    index = CocoIndex.load(*write(base))
    shape = BatchShape(buckets=((128, 160),), max_instances=2, max_edges=100, max_polygons=1)
    with pytest.raises(DataError) as caught:
        train_loader(index, augmentation=Augmentation(resize=Resize(shortest=(120,))), shape=shape, batch_size=1)
    text, edges = str(caught.value), int(index.edge_counts.sum())
    assert "has 3 instances, more than the 2 that max_instances allows." in text
    assert f"has {edges} mask edges, more than the 100 that max_edges allows." in text
    assert "has 3 mask polygons, more than the 1 that max_polygons allows." in text
    assert "or set drop_excess to leave out" in text
    train_loader(
        index,
        augmentation=Augmentation(resize=Resize(shortest=(120,))),
        shape=BatchShape(buckets=((128, 160),), max_instances=3, max_edges=edges, max_polygons=3),
        batch_size=1,
    )


@pytest.mark.parametrize(
    "name",
    [
        "images\\im 001.png", "train/im 001.png", "im%20001.png", "https://example.org/data/im%20001.png?size=2",
        "C:\\work\\images\\im 001.png", "/home/somebody/im 001.png", "./im 001.png",
    ],
)  # fmt: skip
def test_pictures_are_found_under_other_names(base, write, caplog, name):
    base["images"][0]["file_name"] = "im 001.png"
    file, folder = write(base)
    base["images"][0]["file_name"] = name
    file.write_text(json.dumps(base))
    with caplog.at_level(logging.WARNING, "det_coco"):
        index = CocoIndex.load(file, folder)
    assert index.path(0).resolve() == folder / "im 001.png"
    assert ("'file_name' is not what the picture is called for 1 image" in caplog.text) == (not name.startswith("./"))


@pytest.mark.parametrize("name", ["CAF\u00c9 1.PNG", "cafe\u0301 1.png", "images/Caf\u00e9 1.png", " caf\u00e9 1.png"])
def test_pictures_are_found_in_another_spelling(base, write, caplog, name):
    """Names from systems that do not tell small letters from large ones, or take accents apart."""
    base["images"][0]["file_name"] = "caf\u00e9 1.png"
    file, folder = write(base)
    base["images"][0]["file_name"] = name
    file.write_text(json.dumps(base))
    with caplog.at_level(logging.WARNING, "det_coco"):
        assert CocoIndex.load(file, folder).path(0) == folder / "caf\u00e9 1.png"
    assert "'file_name' is not what the picture is called for 1 image" in caplog.text
    (folder / "CAF\u00c9 1.png").write_bytes(b"")
    base["images"][0]["file_name"] = "Caf\u00e9 1.PNG"
    file.write_text(json.dumps(base))
    with pytest.raises(DataError, match="is missing from"):
        CocoIndex.load(file, folder)


@pytest.mark.parametrize("name", ["im001.jpg", "train/IM001", "im001.png.jpeg"])
def test_a_picture_of_another_ending_is_named(base, write, name):
    file, folder = write(base)
    base["images"][0]["file_name"] = name
    file.write_text(json.dumps(base))
    said = {"im001.png.jpeg": "Add them"}.get(name, f"Correct their 'file_name': {name} may be im001.png")
    with pytest.raises(DataError, match=said):
        CocoIndex.load(file, folder)


def test_a_picture_beside_the_folder_is_found(base, write):
    file, folder = write(base)
    base["images"][0]["file_name"] = "other/im001.png"
    file.write_text(json.dumps(base))
    (folder.parent / "other").mkdir()
    (folder / "im001.png").rename(folder.parent / "other" / "im001.png")
    assert CocoIndex.load(file, folder).path(0).is_file()


def test_two_images_never_share_a_picture(base, write):
    file, folder = write(base)
    base["images"] = [{**base["images"][0], "id": n, "file_name": f"part{n}/im001.png"} for n in (1, 2)]
    file.write_text(json.dumps(base))
    with pytest.raises(DataError, match="several images would be read from one picture"):
        CocoIndex.load(file, folder)


@pytest.mark.parametrize("name", ["", "x" * 5000, "a\0b", "..", "https://", "no.png"])
def test_names_that_lead_nowhere(base, write, name):
    file, folder = write(base)
    base["images"][0]["file_name"] = name
    file.write_text(json.dumps(base))
    with pytest.raises(DataError, match="1 of the 1 image of") as caught:
        CocoIndex.load(file, folder)
    assert len(str(caught.value)) < 600
