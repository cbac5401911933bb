"""COCO metrics."""

import contextlib
import io
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from det_coco._coco_api import COCO, COCOeval
from det_coco._parse_masks import is_area, measured_area, usable_segmentation
from det_coco.annotations import CocoIndex
from det_coco.errors import DataError
from det_coco.results import check_results

_log = logging.getLogger("det_coco")

# What each kind of evaluation reads of a row.
_KEYS = {"bbox": "bbox", "segm": "segmentation", "keypoints": "keypoints"}
_AREAS = {"small": "s", "medium": "m", "large": "l"}


def evaluate(
    index: CocoIndex,
    results: Iterable[Mapping[str, Any]],
    iou_types: Iterable[str] = ("bbox", "segm"),
    *,
    image_ids: Sequence[int] | None = None,
    max_detections: int | None = None,
    verbose: bool = False,
) -> dict[str, dict[str, float]]:
    """Compute COCO metrics with pycocotools, against the annotation file.

    Objects that the file marks `ignore` need not be found, and finding them is no mistake; the same holds for objects
    without a mask where masks are evaluated.

    Args:
        index: the split; its annotation file is the ground truth.
        results: rows as `to_results` gives them, of all images; none is all right.
        iou_types: one or more of "bbox", "segm" and "keypoints"; "segm" needs rows with `segmentation`, and ranks by
            `mask_score` where a row has one; "keypoints" needs rows with `keypoints`, measured by the sigmas of
            `index.skeleton`.
        image_ids: evaluate on these images only.
        max_detections: detections that count per image and class, those of the highest scores; by default 100, and 20
            for keypoints, as in COCO.
        verbose: print pycocotools' tables.

    Returns:
        for each IoU type: AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100 (or another `max_detections`), ARs, ARm, ARl;
        for keypoints AP, AP50, AP75, APm, APl, AR, AR50, AR75, ARm, ARl; and "AP/<class>" for every class, with the
        category id where several have one name. Fractions as pycocotools computes them; -1 where there is no ground
        truth to find.

    Raises:
        DataError: a row is malformed or does not belong to the split, see `check_results`; or the split has no masks or
            keypoints where they are evaluated.
        ValueError: an IoU type is unknown, or `max_detections` is less than 10.
    """
    iou_types = tuple(iou_types)
    for iou_type in iou_types:
        if iou_type not in _KEYS:
            raise ValueError(f"iou_types must be {', '.join(_KEYS)} or several of them, got {iou_type!r}.")
    if max_detections is not None and max_detections < 10:
        raise ValueError(f"max_detections must be at least 10, got {max_detections}.")
    if "segm" in iou_types and not index.has_masks:
        raise DataError(f"{index.annotation_file} has no masks to evaluate against. Evaluate bbox alone.")
    if "keypoints" in iou_types and index.skeleton is None:
        raise DataError(f"{index.annotation_file} has no keypoints to evaluate against. Evaluate bbox alone.")
    rows = check_results(index, results, [_KEYS[iou_type] for iou_type in iou_types])
    wanted = index.image_ids if image_ids is None else np.unique(np.asarray(image_ids, dtype=np.int64))
    out = {}
    with contextlib.nullcontext() if verbose else contextlib.redirect_stdout(io.StringIO()):
        truth = _ground_truth(index, iou_types)
        for iou_type in iou_types:
            limit = max_detections or (20 if iou_type == "keypoints" else 100)
            _warn_limit(index, limit, iou_type)
            evaluation = _Evaluation(truth, _detections(truth, rows, iou_type), iou_type)
            evaluation.params.imgIds = wanted.tolist()
            evaluation.params.maxDets[-1] = limit
            if iou_type == "keypoints" and index.skeleton is not None:
                evaluation.params.kpt_oks_sigmas = np.array(index.skeleton.sigmas)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            out[iou_type] = _metrics(index, evaluation)
    return out


class _Evaluation(COCOeval):
    """pycocotools' evaluation, which itself overwrites the `ignore` of a file by `iscrowd`."""

    def _prepare(self) -> None:
        super()._prepare()
        for annotation in chain.from_iterable(self._gts.values()):
            without = self.params.iouType == "segm" and annotation["maskless"]
            annotation["ignore"] = annotation["ignore"] or annotation["ignored"] or without


def _metrics(index: CocoIndex, evaluation: Any) -> dict[str, float]:
    params = evaluation.params
    # [IoU thresholds, recalls, classes, areas, limits of detections] and [IoU thresholds, classes, areas, limits]
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]
    at = {name: int(np.argmin(abs(params.iouThrs - iou))) for name, iou in (("50", 0.5), ("75", 0.75))}
    areas = {_AREAS[name]: a for a, name in enumerate(params.areaRngLbl) if name in _AREAS}
    metrics = {"AP": _mean(precision[:, :, :, 0, -1])}
    metrics |= {f"AP{iou}": _mean(precision[t, :, :, 0, -1]) for iou, t in at.items()}
    metrics |= {f"AP{area}": _mean(precision[:, :, :, a, -1]) for area, a in areas.items()}
    if params.iouType == "keypoints":
        metrics["AR"] = _mean(recall[:, :, 0, -1])
        metrics |= {f"AR{iou}": _mean(recall[t, :, 0, -1]) for iou, t in at.items()}
    else:
        metrics |= {f"AR{limit}": _mean(recall[:, :, 0, m]) for m, limit in enumerate(params.maxDets)}
    metrics |= {f"AR{area}": _mean(recall[:, :, a, -1]) for area, a in areas.items()}
    for label, (category_id, name) in enumerate(index.categories.items()):
        unique = index.class_names.count(name) == 1
        metrics[f"AP/{name}" if unique else f"AP/{name} (id {category_id})"] = _mean(precision[:, :, label, 0, -1])
    return metrics


def _mean(values: np.ndarray) -> float:
    """Average what there is; -1 marks what there is not."""
    values = values[values > -1]
    return float(values.mean()) if values.size else -1.0


def _warn_limit(index: CocoIndex, limit: int, iou_type: str) -> None:
    image = np.repeat(np.arange(len(index)), np.diff(index.image_instances))
    pairs = (image * index.num_classes + index.labels)[~index.crowd]
    pairs, counts = np.unique(pairs, return_counts=True)
    if (counts > limit).any():
        worst = int(counts.argmax())
        _log.warning(
            "%s: %s of one class, but only the best %d detections of a class count in each image, so that the %s AP "
            "cannot reach 1. The most are %d, in image %d. Raise max_detections to %d.",
            index.annotation_file,
            "An image has more objects" if (counts > limit).sum() == 1 else "Some images have more objects",
            limit, iou_type, counts[worst], index.image_ids[pairs[worst] // index.num_classes], counts[worst],
        )  # fmt: skip


def _ground_truth(index: CocoIndex, iou_types: Sequence[str]) -> Any:
    try:
        content = json.loads(index.annotation_file.read_bytes())
    except (OSError, ValueError):
        raise DataError(f"{index.annotation_file} has changed since it was loaded. Load it again.") from None
    maskless = 0
    for number, annotation in enumerate(content["annotations"], start=1):
        # The ids are the file's own business: pycocotools takes an object of id 0 for one that was not found.
        annotation["id"] = number
        annotation.setdefault("iscrowd", 0)
        annotation["ignored"] = bool(annotation.get("ignore"))
        if not is_area(annotation.get("area")):
            height, width = index.image_size(annotation["image_id"])
            annotation["area"] = measured_area(annotation, height, width)
        if "segm" in iou_types:
            annotation["maskless"] = not usable_segmentation(annotation)
            maskless += annotation["maskless"]
            _repair_segmentation(annotation)
        if "keypoints" in iou_types and index.skeleton is not None:
            _repair_keypoints(annotation, len(index.skeleton.names))
    if maskless:
        _log.warning(
            "%s: %d of %d objects have no mask. They are left out of the evaluation of masks.",
            index.annotation_file, maskless, len(content["annotations"]),
        )  # fmt: skip
    return _coco(content)


def _repair_keypoints(annotation: dict[str, Any], count: int) -> None:
    """Fill in what pycocotools expects of every object."""
    keypoints = annotation.get("keypoints") or [0] * (3 * count)
    annotation["keypoints"] = keypoints
    annotation.setdefault("num_keypoints", sum(visibility > 0 for visibility in keypoints[2::3]))


def _repair_segmentation(annotation: dict[str, Any]) -> None:
    """Leave out what pycocotools cannot rasterise; the box stands in where there is nothing else, and is ignored."""
    if isinstance(annotation.get("segmentation"), dict):
        return
    x, y, w, h = annotation["bbox"]
    annotation["segmentation"] = usable_segmentation(annotation) or [[x, y, x + w, y, x + w, y + h, x, y + h]]


def _detections(truth: Any, results: Sequence[Mapping[str, Any]], iou_type: str) -> Any:
    if not results:
        return _coco({**truth.dataset, "annotations": []})
    # With several keys pycocotools would take the area, which decides small, medium or large, from the box.
    others = set(_KEYS.values()) - {_KEYS[iou_type]}
    rows = [{k: v for k, v in row.items() if k not in others} for row in results]
    if iou_type == "segm":
        rows = [{**row, "score": row.get("mask_score", row["score"])} for row in rows]
    return truth.loadRes(rows)


def _coco(content: dict[str, Any]) -> Any:
    coco = COCO()
    coco.dataset = content
    coco.createIndex()
    return coco
