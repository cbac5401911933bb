"""COCO metrics."""

import contextlib
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from det_coco._coco_api import COCO, COCOeval
from det_coco.annotations import CocoIndex
from det_coco.errors import DataError

# In the order of COCOeval.stats.
_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
_KEYPOINT_NAMES = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")
# What each kind of evaluation reads of a row.
_SHAPES = {"bbox": "bbox", "segm": "segmentation", "keypoints": "keypoints"}


def evaluate(
    index: CocoIndex,
    results: Sequence[Mapping[str, Any]],
    iou_types: Iterable[str] = ("bbox", "segm"),
    *,
    image_ids: Sequence[int] | None = None,
    category_ids: Sequence[int] | None = None,
    verbose: bool = False,
) -> dict[str, dict[str, float]]:
    """Compute COCO metrics with pycocotools, against the annotation file as it is.

    Args:
        index: the split; its annotation file is the truth.
        results: rows as `to_results` gives them, of all images; none is all right.
        iou_types: one or more of "bbox", "segm" and "keypoints"; "segm" needs rows with `segmentation`, and ranks by
            `mask_score` where a row has one; "keypoints" needs rows with `keypoints`, measured by the sigmas of
            `index.skeleton`.
        image_ids: evaluate on these images only.
        category_ids: evaluate these categories only, as for a detector that was asked for no others.
        verbose: print pycocotools' tables.

    Returns:
        for each IoU type: AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl (for keypoints AP, AP50, AP75,
        APm, APl, AR, AR50, AR75, ARm, ARl), and "AP/<class>" for every class. Fractions as pycocotools computes them;
        -1 where there is no ground truth to find.

    Raises:
        DataError: a row names an unknown image, or lacks what is evaluated; or the split has no keypoints.
        ValueError: an IoU type is unknown.
    """
    iou_types = tuple(iou_types)
    for iou_type in iou_types:
        if iou_type not in _SHAPES:
            raise ValueError(f"iou_types must be {', '.join(_SHAPES)} or several of them, got {iou_type!r}.")
    _check_rows(index, results, iou_types)
    wanted = index.image_ids if image_ids is None else np.unique(np.asarray(image_ids, dtype=np.int64))
    out = {}
    with contextlib.nullcontext() if verbose else contextlib.redirect_stdout(io.StringIO()):
        truth = _ground_truth(index, iou_types)
        for iou_type in iou_types:
            evaluation = COCOeval(truth, _detections(truth, results, iou_type), iou_type)
            evaluation.params.imgIds = wanted.tolist()
            if category_ids is not None:
                evaluation.params.catIds = sorted(category_ids)
            if iou_type == "keypoints" and index.skeleton is not None:
                evaluation.params.kpt_oks_sigmas = np.array(index.skeleton.sigmas)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            out[iou_type] = _metrics(index, evaluation)
    return out


def _metrics(index: CocoIndex, evaluation: Any) -> dict[str, float]:
    names = _KEYPOINT_NAMES if evaluation.params.iouType == "keypoints" else _NAMES
    metrics = {name: float(value) for name, value in zip(names, evaluation.stats, strict=True)}
    # [IoU thresholds, recalls, classes, areas, detection limits]: all areas, the most detections.
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    for position, category_id in enumerate(evaluation.params.catIds):
        values = precision[:, :, position]
        values = values[values > -1]
        metrics[f"AP/{index.categories[category_id]}"] = float(values.mean()) if values.size else -1.0
    return metrics


def _ground_truth(index: CocoIndex, iou_types: Sequence[str]) -> Any:
    try:
        content = json.loads(index.annotation_file.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{index.annotation_file} has changed since it was loaded: {error}.") from None
    for annotation in content["annotations"]:
        annotation.setdefault("iscrowd", 0)
        area = annotation.get("area")
        if not isinstance(area, int | float) or not math.isfinite(area):
            annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
        if "segm" in iou_types:
            _repair_segmentation(annotation)
        if "keypoints" in iou_types and index.skeleton is not None:
            _repair_keypoints(annotation, len(index.skeleton.names))
    return _coco(content)


def _repair_keypoints(annotation: dict[str, Any], count: int) -> None:
    """Fill in what pycocotools expects of every object."""
    keypoints = annotation.get("keypoints") or [0] * (3 * count)
    annotation["keypoints"] = keypoints
    annotation.setdefault("num_keypoints", sum(visibility > 0 for visibility in keypoints[2::3]))


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
    # With several keys pycocotools would take the area, which decides small, medium or large, from the box.
    others = set(_SHAPES.values()) - {_SHAPES[iou_type]}
    rows = [{k: v for k, v in row.items() if k not in others} for row in results]
    if iou_type == "segm":
        rows = [{**row, "score": row.get("mask_score", row["score"])} for row in rows]
    return truth.loadRes(rows)


def _coco(content: dict[str, Any]) -> Any:
    coco = COCO()
    coco.dataset = content
    coco.createIndex()
    return coco


def _check_rows(index: CocoIndex, results: Sequence[Mapping[str, Any]], iou_types: Sequence[str]) -> None:
    ids = np.array([row["image_id"] for row in results], dtype=np.int64)
    unknown = ids[~np.isin(ids, index.image_ids)]
    if unknown.size:
        raise DataError(
            f"{unknown.size} results belong to images that are not in {index.annotation_file}, for example image "
            f"{unknown[0]}. Evaluate them on the split they were made on."
        )
    if "segm" in iou_types and any("segmentation" not in row for row in results):
        raise DataError("Results without 'segmentation' cannot be evaluated as masks. Evaluate bbox alone.")
    if "keypoints" in iou_types:
        _check_keypoints(index, results)


def _check_keypoints(index: CocoIndex, results: Sequence[Mapping[str, Any]]) -> None:
    if index.skeleton is None:
        raise DataError(f"{index.annotation_file} has no keypoints to evaluate against. Evaluate bbox alone.")
    numbers = 3 * len(index.skeleton.names)
    for number, row in enumerate(results):
        if "keypoints" not in row:
            raise DataError(f"Result {number} has no 'keypoints', so it cannot be evaluated. Evaluate bbox alone.")
        if len(row["keypoints"]) != numbers:
            raise DataError(
                f"Result {number} has {len(row['keypoints'])} numbers in 'keypoints', but {index.annotation_file} "
                f"lists {numbers // 3} keypoints, which makes {numbers} numbers: x, y and visibility for each."
            )
