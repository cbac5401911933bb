import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from det_coco import CocoIndex, DataError, evaluate, ground_truth_of, load_split, save_results, to_results


def noisy(index: CocoIndex, seed: int = 0) -> list[dict]:
    """Results made of the truth: moved, some lost, some of a wrong class, with random scores."""
    random = np.random.default_rng(seed)
    rows = []
    for position in range(len(index)):
        image_id = int(index.image_ids[position])
        truth = ground_truth_of(index, image_id)
        kept = random.random(len(truth.labels)) < 0.9
        boxes = truth.boxes[kept] + random.normal(0, 1.5, (kept.sum(), 4))
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        labels = np.where(random.random(kept.sum()) < 0.9, truth.labels[kept], 0)
        masks = [np.roll(m, random.integers(0, 2), axis=1) for m in truth.masks[kept]]
        rles = [coco_mask.encode(np.asfortranarray(m.astype(np.uint8))) for m in masks]
        rows += to_results(index, image_id, boxes, random.random(kept.sum()), labels, rles)
    return rows


def reference(index: CocoIndex, rows: list[dict], iou_type: str, tmp_path) -> np.ndarray:
    """pycocotools, used as its own demonstration does; masks without boxes, as detectron2 evaluates them."""
    if iou_type == "segm":
        rows = [{k: v for k, v in row.items() if k != "bbox"} for row in rows]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(index.annotation_file))
        evaluation = COCOeval(truth, truth.loadRes(str(tmp_path / "rows.json")), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def compare(index: CocoIndex, tmp_path) -> None:
    rows = noisy(index)
    ours = evaluate(index, rows)
    for iou_type in ("bbox", "segm"):
        numbers = [v for k, v in ours[iou_type].items() if "/" not in k]
        assert numbers == reference(index, rows, iou_type, tmp_path).tolist()
        assert 0.1 < ours[iou_type]["AP"] < 0.95
        classes = [ours[iou_type][f"AP/{name}"] for name in index.class_names]
        present = [v for v in classes if v >= 0]
        assert np.mean(present) == pytest.approx(ours[iou_type]["AP"])


def test_equals_pycocotools(val, tmp_path):
    compare(val, tmp_path)


def test_photographs_equal_pycocotools(pennfudan, tmp_path):
    compare(load_split(pennfudan, "val"), tmp_path)


def test_perfect_results(coco_mini):
    index = load_split(coco_mini, "val2017")
    rows = []
    for image_id in index.image_ids.tolist():
        truth = ground_truth_of(index, image_id)
        own = ~truth.crowd
        rles = [coco_mask.encode(np.asfortranarray(m.astype(np.uint8))) for m in truth.masks[own]]
        rows += to_results(index, image_id, truth.boxes[own], np.ones(own.sum()), truth.labels[own], rles)
    metrics = evaluate(index, rows)
    assert metrics["bbox"]["AP"] == pytest.approx(1)
    assert metrics["segm"]["AP"] == pytest.approx(1)
    assert -1 in metrics["bbox"].values()


def test_no_results(val):
    metrics = evaluate(val, [])
    assert metrics["bbox"]["AP"] == metrics["segm"]["AP50"] == 0
    assert evaluate(val, [], ["bbox"]).keys() == {"bbox"}


def test_prints_nothing(val, capsys):
    evaluate(val, noisy(val))
    assert capsys.readouterr() == ("", "")


def test_rows_are_coco_results(val, tmp_path):
    image_id = int(val.image_ids[0])
    rle = {"size": [3, 4], "counts": b"0"}
    (row,) = to_results(val, image_id, np.array([[1.0, 2, 4, 8]]), np.array([0.5], np.float32), np.array([2]), [rle])
    assert row == {
        "image_id": image_id,
        "category_id": 4,
        "bbox": [1, 2, 3, 6],
        "score": 0.5,
        "segmentation": {"size": [3, 4], "counts": "0"},
    }
    (legacy,) = to_results(val, image_id, [[1, 2, 4, 8]], [0.5], [2], offset=1.0)
    assert legacy["bbox"] == [1, 2, 4, 7]
    assert to_results(val, image_id, np.zeros((0, 4)), np.zeros(0), np.zeros(0)) == []
    save_results([row], tmp_path / "deep" / "r.json")
    assert json.loads((tmp_path / "deep" / "r.json").read_text()) == [row]


def test_subset_of_images(val):
    some = val.image_ids[:3].tolist()
    rows = [row for row in noisy(val) if row["image_id"] in some]
    assert evaluate(val, rows, image_ids=some)["bbox"]["AP"] > evaluate(val, rows)["bbox"]["AP"]


def test_wrong_rows(val):
    row = {"image_id": 999, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1.0}
    with pytest.raises(DataError, match=r"lacks the images of 1 result, for example image 999"):
        evaluate(val, [row])
    with pytest.raises(DataError, match="without 'segmentation'"):
        evaluate(val, [{**row, "image_id": int(val.image_ids[0])}])
    with pytest.raises(ValueError, match="must be bbox, segm, boundary, keypoints or several of them, got 'boxes'"):
        evaluate(val, [], ["boxes"])


def test_truth_that_pycocotools_cannot_rasterise(content, write):
    content["categories"].append({"id": 11, "name": "owl"})
    content["annotations"].append({**content["annotations"][0], "id": 3, "category_id": 11})
    content["annotations"][0]["segmentation"] = []
    content["annotations"][1]["segmentation"] = [[1, 1, 2, 2]]
    del content["annotations"][1]["iscrowd"], content["annotations"][1]["area"]
    index = CocoIndex.load(*write(content))
    rows = to_results(index, 7, index.boxes[1:2], [1.0], index.labels[1:2])
    mask = np.zeros((40, 30), np.uint8)
    mask[3:9, 2:12] = 1
    rows[0]["segmentation"] = coco_mask.encode(np.asfortranarray(mask))
    metrics = evaluate(index, rows)
    assert metrics["bbox"]["AP"] == pytest.approx(1 / 3)
    # The cat and the dog have no mask, so that there is none to find; the owl's is missed.
    assert metrics["segm"]["AP/cat"] == metrics["segm"]["AP/dog"] == -1
    assert metrics["segm"]["AP"] == metrics["segm"]["AP/owl"] == 0


def test_masks_may_have_scores_of_their_own(val):
    rows = noisy(val)
    random = np.random.default_rng(5)
    scored = [{**row, "mask_score": float(score)} for row, score in zip(rows, random.random(len(rows)), strict=True)]
    both = evaluate(val, scored)
    assert both["bbox"] == evaluate(val, rows, ["bbox"])["bbox"]
    assert both["segm"] == evaluate(val, [{**row, "score": row["mask_score"]} for row in scored], ["segm"])["segm"]
    (row,) = to_results((3,), 7, np.zeros((1, 4)), np.array([0.5]), np.array([0]), mask_scores=np.array([0.25]))
    assert (row["score"], row["mask_score"]) == (0.5, 0.25)
