"""COCO results and COCO metrics."""

import contextlib
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from det_coco._coco_api import COCO, COCOeval
from det_coco.annotations import CocoIndex
from det_coco.errors import DataError

# In the order of COCOeval.stats.
_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def to_results(
    index_or_ids: CocoIndex | Sequence[int],
    image_id: int,
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    rles: Sequence[Mapping[str, Any]] | None = None,
    *,
    mask_scores: np.ndarray | None = None,
    offset: float = 0.0,
) -> list[dict[str, Any]]:
    """Write the detections of one image as rows of a COCO results file.

    Args:
        index_or_ids: an index, or the category ids by contiguous label.
        image_id: the data set's own id.
        boxes: `[K, 4]` x1, y1, x2, y2 in original pixels.
        scores: `[K]`.
        labels: `[K]` contiguous classes 0 .. C - 1.
        rles: K compressed run-length codes `{"size": [h, w], "counts": text}`, or None.
        mask_scores: `[K]` scores of the masks, where they are others than the boxes' (YOLACT++), or None.
        offset: 1 where boxes are inclusive (legacy), so that width is x2 - x1 + 1.

    Returns:
        K rows with image_id, category_id, bbox [x, y, width, height], score and, with masks, segmentation and where
        given mask_score; plain Python values, ready for JSON.
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    categories = index_or_ids.category_ids if isinstance(index_or_ids, CocoIndex) else tuple(index_or_ids)
    sides = boxes[:, 2:] - boxes[:, :2] + offset
    rows: list[dict[str, Any]] = [
        {
            "image_id": int(image_id),
            "category_id": categories[int(label)],
            "bbox": [*corner, *side],
            "score": float(score),
        }
        for corner, side, score, label in zip(
            boxes[:, :2].tolist(), sides.tolist(), np.asarray(scores), np.asarray(labels), strict=True
        )
    ]
    if rles is not None:
        for row, rle in zip(rows, rles, strict=True):
            counts = rle["counts"]
            text = counts.decode("ascii") if isinstance(counts, bytes) else counts
            row["segmentation"] = {"size": [int(v) for v in rle["size"]], "counts": text}
    if mask_scores is not None:
        for row, score in zip(rows, np.asarray(mask_scores), strict=True):
            row["mask_score"] = float(score)
    return rows


def evaluate(
    index: CocoIndex,
    results: Sequence[Mapping[str, Any]],
    iou_types: Iterable[str] = ("bbox", "segm"),
    *,
    image_ids: Sequence[int] | None = None,
    verbose: bool = False,
) -> dict[str, dict[str, float]]:
    """Compute COCO metrics with pycocotools, against the annotation file as it is.

    Args:
        index: the split; its annotation file is the truth.
        results: rows as `to_results` gives them, of all images; none is all right.
        iou_types: "bbox", "segm" or both; "segm" needs rows with `segmentation`, and ranks by `mask_score` where a row
            has one.
        image_ids: evaluate on these images only.
        verbose: print pycocotools' tables.

    Returns:
        for each IoU type: AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl, and "AP/<class>" for every
        class. Fractions as pycocotools computes them; -1 where there is no truth to find.

    Raises:
        DataError: a row names an unknown image, or has no mask where masks are evaluated.
    """
    iou_types = tuple(iou_types)
    for iou_type in iou_types:
        if iou_type not in ("bbox", "segm"):
            raise ValueError(f"iou_types must be bbox or segm, got {iou_type!r}")
    _check_rows(index, results, "segm" in iou_types)
    wanted = index.image_ids if image_ids is None else np.unique(np.asarray(image_ids, dtype=np.int64))
    out = {}
    with contextlib.nullcontext() if verbose else contextlib.redirect_stdout(io.StringIO()):
        truth = _truth(index, "segm" in iou_types)
        for iou_type in iou_types:
            evaluation = COCOeval(truth, _detections(truth, results, iou_type), iou_type)
            evaluation.params.imgIds = wanted.tolist()
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            out[iou_type] = _metrics(index, evaluation)
    return out


def _metrics(index: CocoIndex, evaluation: Any) -> dict[str, float]:
    metrics = {name: float(value) for name, value in zip(_NAMES, evaluation.stats, strict=True)}
    # [IoU thresholds, recalls, classes, areas, detection limits]: all areas, 100 detections.
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    for label, name in enumerate(index.class_names):
        values = precision[:, :, label]
        values = values[values > -1]
        metrics[f"AP/{name}"] = float(values.mean()) if values.size else -1.0
    return metrics


def _truth(index: CocoIndex, masks: bool) -> Any:
    try:
        content = json.loads(index.annotation_file.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{index.annotation_file} has changed since it was loaded: {error}.") from None
    if masks:
        for annotation in content["annotations"]:
            _repair_segmentation(annotation)
    for annotation in content["annotations"]:
        annotation.setdefault("iscrowd", 0)
        area = annotation.get("area")
        if not isinstance(area, int | float) or not math.isfinite(area):
            annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
    return _coco(content)


def _repair_segmentation(annotation: dict[str, Any]) -> None:
    """Leave out what pycocotools cannot rasterise; an object without any mask counts as its box."""
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        return
    polygons = [p for p in segmentation or () if len(p) >= 6]
    if not polygons:
        x, y, w, h = annotation["bbox"]
        polygons = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    annotation["segmentation"] = polygons


def _detections(truth: Any, results: Sequence[Mapping[str, Any]], iou_type: str) -> Any:
    if not results:
        return _coco({**truth.dataset, "annotations": []})
    # With both keys pycocotools would take the area, which decides small, medium or large, from the box.
    other = "segmentation" if iou_type == "bbox" else "bbox"
    rows = [{k: v for k, v in row.items() if k != other} for row in results]
    if iou_type == "segm":
        rows = [{**row, "score": row.get("mask_score", row["score"])} for row in rows]
    return truth.loadRes(rows)


def _coco(content: dict[str, Any]) -> Any:
    coco = COCO()
    coco.dataset = content
    coco.createIndex()
    return coco


def _check_rows(index: CocoIndex, results: Sequence[Mapping[str, Any]], masks: bool) -> None:
    ids = np.array([row["image_id"] for row in results], dtype=np.int64)
    unknown = ids[~np.isin(ids, index.image_ids)]
    if unknown.size:
        raise DataError(
            f"{unknown.size} results belong to images that are not in {index.annotation_file}, for example image "
            f"{unknown[0]}. Evaluate them on the split they were made on."
        )
    if masks and any("segmentation" not in row for row in results):
        raise DataError("Results without 'segmentation' cannot be evaluated as masks. Evaluate bbox alone.")


def save_results(results: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Write rows as a COCO results file.

    Args:
        results: rows as `to_results` gives them.
        path: the JSON file; its folder is made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(list(results), separators=(",", ":")))
