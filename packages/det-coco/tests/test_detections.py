import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given, settings

from det_coco import DataError, Detections, detections, evaluate, save_results, to_results
from det_coco._coco_api import coco_mask
from testing.evaluation_cases import HEIGHT, WIDTH, cases, make_case, open_case


@pytest.fixture
def case(tmp_path):
    content, rows = make_case(1, images=5, classes=3, objects=20, detections=30)
    return open_case(content, tmp_path), rows


@given(cases())
@settings(deadline=None, max_examples=30)
def test_rows_come_back_as_they_were(tmp_path_factory, case):
    content, rows = case
    index = open_case(content, tmp_path_factory.mktemp("case"))
    assert Detections.from_rows(index, rows).rows() == rows


def read_by(reader, index, rows):
    """Arrays by name, or the message."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detections, "compiled", reader)
        try:
            found = Detections.from_rows(index, rows)
        except DataError as error:
            return str(error)
    return {
        name: None if value is None else (value.dtype, value.shape, value.tolist())
        for name, value in vars(found).items()
    }


ODD = [
    *(("image_id", value) for value in (1.0, True, 2**62, -(2**70), "1", None, np.int32(1))),
    *(("category_id", value) for value in (2.5, False, np.int64(1))),
    *(("score", value) for value in (1, True, 10**400, float("nan"), float("inf"), np.float64(0.1), "1")),
    *(("bbox", value) for value in ((1, 2, 3, 4), [1, 2.5, 3, 4], [1, 2, 3], np.ones(4), [1, 2, 3, None], [], None)),
    ("segmentation", None), ("segmentation", {}), ("segmentation", {"size": [HEIGHT, WIDTH], "counts": b"0P"}),
    ("segmentation", {"size": (HEIGHT, WIDTH), "counts": "0P"}), ("segmentation", {"size": [HEIGHT], "counts": "0P"}),
    ("segmentation", {"size": [HEIGHT, 1.5], "counts": "0P"}), ("segmentation", {"size": [1, 1], "counts": "\u3042"}),
    ("segmentation", {"size": [1, 1], "counts": "\xe9"}), ("segmentation", {"size": [1, 1], "counts": ""}),
    ("mask_score", 0.5), ("mask_score", None), ("keypoints", [1, 2, 3]), ("other", 7),
]  # fmt: skip


@pytest.mark.skipif(detections.compiled is None, reason="det-coco was installed without its compiled part")
@pytest.mark.parametrize("masks", [True, False])
def test_compiled_and_python_read_the_same_rows(case, masks):
    index, rows = case
    if not masks:
        rows = [{key: value for key, value in row.items() if key != "segmentation"} for row in rows]
    variants = [rows, [], tuple(rows), rows[:1], [*rows, 7], [*rows, {}]]
    for key in rows[0]:
        variants += [[{k: v for k, v in row.items() if k != key or n == 1} for n, row in enumerate(rows)]]
        variants += [[{k: v for k, v in row.items() if k != key or n != 1} for n, row in enumerate(rows)]]
    for (key, value), place in itertools.product(ODD, (0, 1, -1)):
        changed = list(rows)
        changed[place] = {**changed[place], key: value}
        variants.append(changed)
    for variant in variants:
        assert read_by(detections.compiled, index, variant) == read_by(None, index, variant)
    assert detections.compiled.row_columns(rows) is not None


def test_of_an_image_as_rows_of_an_image(case, tmp_path):
    index, _ = case
    boxes, scores = np.array([[1, 2, 4, 8], [3, 3, 7, 9.5]], np.float32), np.array([0.5, 0.25], np.float32)
    rle = coco_mask.encode(np.ones((HEIGHT, WIDTH), np.uint8, order="F"))
    arguments = (index, int(index.image_ids[0]), boxes, scores, np.array([2, 0]), [rle, rle])
    for more in ({}, {"mask_scores": np.array([0.1, 0.2])}, {"keypoints": np.ones((2, 4, 3))}, {"offset": 1.0}):
        rows = Detections.of_image(*arguments, **more).rows()
        assert rows == to_results(*arguments, **more)
    save_results(rows, tmp_path / "rows.json")


def test_nothing_found_by_a_detector_of_keypoints_is_no_rows():
    nothing = ((3, 9), 7, np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))
    assert to_results(*nothing, keypoints=np.zeros((0, 17, 3))) == []
    assert Detections.of_image(*nothing, keypoints=np.zeros((0, 17, 3))).rows() == []


def test_labels_without_a_category_are_left_out():
    found = Detections.of_image((3, None, 9), 7, np.eye(4)[:3], [0.1, 0.2, 0.3], [2, 1, 0])
    assert found.category_ids.tolist() == [9, 3]
    assert found.scores.tolist() == [0.1, 0.3]


def test_parts_of_several_processes(case):
    index, rows = case
    rows = [{**row, "mask_score": row["score"] / 2} for row in rows]
    whole = Detections.from_rows(index, rows)
    parts = [Detections.from_rows(index, [r for r in rows if r["image_id"] % 2 == odd]) for odd in (0, 1)]
    gathered = Detections.concatenate(pickle.loads(pickle.dumps([parts[1], parts[0][:0], parts[0]])))
    assert gathered.sorted().rows() == whole.sorted().rows() == sorted(rows, key=lambda row: row["image_id"])
    assert evaluate(index, gathered.sorted()) == evaluate(index, rows)
    assert len(Detections.concatenate([])) == 0
    assert evaluate(index, Detections.concatenate([])) == evaluate(index, [])


def test_chosen_detections(case):
    index, rows = case
    whole = Detections.from_rows(index, rows)
    chosen = np.array([7, 3, 3, 12])
    assert whole[chosen].rows() == [rows[n] for n in chosen]
    assert whole[whole.scores > 0.4].rows() == [row for row in rows if row["score"] > 0.4]


def test_masks_in_all_forms(case):
    index, rows = case
    (size, polygon) = [HEIGHT, WIDTH], [5.0, 5.0, 25.0, 5.0, 25.0, 30.0]
    code = coco_mask.merge(coco_mask.frPyObjects([polygon], *size))
    flat = coco_mask.decode(code).T.reshape(-1)
    bounds = [0, *(np.flatnonzero(np.diff(flat)) + 1).tolist(), flat.size]
    plain = {"size": size, "counts": np.diff(bounds).tolist()}
    for form in ([polygon], plain, code, {**code, "counts": code["counts"].decode()}):
        (row,) = Detections.from_rows(index, [{**rows[0], "segmentation": form}]).rows()
        assert row["segmentation"] == {"size": size, "counts": code["counts"].decode()}


def test_rows_without_boxes_and_generators(case):
    index, rows = case
    metrics = evaluate(index, rows, ["segm"])
    assert evaluate(index, ({k: v for k, v in row.items() if k != "bbox"} for row in rows), ["segm"]) == metrics


def test_boxes_and_masks_do_not_touch_each_other(case):
    index, rows = case
    plain = evaluate(index, rows)
    moved = evaluate(index, [{**row, "bbox": [0, 0, 1, 1]} for row in rows])
    assert moved["segm"] == plain["segm"]
    assert moved["bbox"] != plain["bbox"]
    empty = [{**row, "segmentation": [[0, 0, 1, 0, 1, 1]]} for row in rows]
    assert evaluate(index, empty, ["bbox"])["bbox"] == plain["bbox"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [1, 2, 3]}, "'bbox' of result 2 must be 4 finite numbers, got"),
        ({"bbox": [1, 2, 3, float("nan")]}, "'bbox' of result 2 must be 4 finite numbers"),
        ({"bbox": "1234"}, "'bbox' of result 2 must be 4 finite numbers"),
        ({"bbox": None}, "'bbox' of result 2 must be 4 finite numbers"),
        ({"score": "0.5"}, "'score' of result 2 must be a finite number, got '0.5'"),
        ({"score": True}, "'score' of result 2 must be a finite number"),
        ({"image_id": 1.7}, r"'image_id' of result 2 must be a whole number, got 1\.7"),
        ({"image_id": "a"}, "'image_id' of result 2 must be a finite number, got 'a'"),
        ({"image_id": 1001}, r"lacks the images of 1 result, .* image 1001 \(result 2\)"),
        ({"category_id": 5001}, r"lacks the category ids of 1 result, .* 5001 \(result 2\); it has"),
        ({"segmentation": {"size": [HEIGHT, WIDTH]}}, "'segmentation' of result 2 must be a run-length code or a list"),
        ({"segmentation": [["a"]]}, "'segmentation' of result 2 must be a run-length code or a list of polygons"),
        (
            {"segmentation": {"size": [30, 40], "counts": "Xg3"}},
            r"The masks of 1 result have another size .* \[30, 40\]",
        ),
        (
            {"segmentation": {"size": [HEIGHT, WIDTH], "counts": "53"}},
            r"result 2 .* covers 8 pixels, but .* 20800",
        ),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "5P"}}, r"code of result 2 .* cannot be read"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": ""}}, r"code of result 2 .* covers 0 pixels"),
    ],
)
def test_rows_that_cannot_be_read(case, change, message):
    index, rows = case
    with pytest.raises(DataError, match=message):
        evaluate(index, [*rows[:2], {**rows[2], **change}, *rows[3:]])


def test_rows_that_lack_something(case):
    index, rows = case
    for key in ("image_id", "category_id", "bbox", "score"):
        with pytest.raises(DataError, match=f"Result 1 has no '{key}'"):
            evaluate(index, [rows[0], {k: v for k, v in rows[1].items() if k != key}])
    with pytest.raises(DataError, match="Result 0 must be an object with image_id"):
        evaluate(index, [7])
    broken = Detections.from_rows(index, rows)
    broken.scores[4] = np.nan
    with pytest.raises(DataError, match=r"'score' of result 4 .* is not finite"):
        evaluate(index, broken)


def test_data_without_masks_has_no_mask_metrics(tmp_path):
    content, rows = make_case(1, images=5, classes=3, objects=20, detections=30)
    for annotation in content["annotations"]:
        annotation["segmentation"] = []
    with pytest.raises(DataError, match="has no masks to evaluate masks against"):
        evaluate(open_case(content, tmp_path), rows)


def test_two_classes_of_one_name(tmp_path):
    content, rows = make_case(1, images=5, classes=3, objects=20, detections=30)
    for category in content["categories"][:2]:
        category["name"] = "cat"
    first, second, third = content["categories"]
    names = evaluate(open_case(content, tmp_path), rows)["bbox"].keys()
    assert {f"AP/cat ({first['id']})", f"AP/cat ({second['id']})", f"AP/{third['name']}"} <= names
    third["name"] = f"cat ({first['id']})"
    names = evaluate(open_case(content, tmp_path), rows)["bbox"].keys()
    assert {f"AP/cat ({first['id']})", f"AP/cat ({second['id']})", f"AP/{third['name']} ({third['id']})"} <= names
