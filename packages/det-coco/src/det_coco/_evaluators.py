"""The evaluators: hotcoco, whose numbers are those of pycocotools and lvis to the last bit, and pycocotools itself.

pycocotools is what is left where hotcoco cannot be imported, and what the tests hold hotcoco against.
"""

import contextlib
import gc
import io
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from det_coco._boundary import boundary_ious
from det_coco._coco_api import COCO, COCOeval, hotcoco
from det_coco._columns import Columns


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """A block that makes millions of small objects, none in a cycle: to look for cycles takes a third of its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def match(columns: Columns) -> Any:
    """Match detections to objects by the faster evaluator that can do it.

    Args:
        columns: what to compare.

    Returns:
        an evaluator with pycocotools' `accumulate`, `eval` and `evalImgs`, after its `evaluate`.
    """
    # hotcoco has no boundary IoU, and takes no keypoints as columns.
    fast = hotcoco is not None and columns.iou_type in ("bbox", "segm")
    return by_hotcoco(columns) if fast else by_pycocotools(columns)


def by_hotcoco(columns: Columns) -> Any:
    """Match by hotcoco; see `match`."""
    truth = hotcoco.COCO.from_arrays(
        _images(columns),
        _categories(columns),
        columns.truth_images + 1,
        columns.truth_labels + 1,
        columns.truth_boxes,
        area=columns.truth_areas,
        iscrowd=columns.crowd,
        segmentation=columns.truth_masks or None,
    )
    rows = (columns.found_images + 1, columns.found_boxes, columns.scores, columns.found_labels + 1)
    found = truth.load_res(np.column_stack(rows), segmentation=columns.found_masks or None)
    if columns.found_masks:
        # Of a row with a box hotcoco, like pycocotools, takes the box's area, also where masks are compared.
        found.update_anns(ids=np.arange(1, len(columns.scores) + 1), area=columns.found_areas)
    if columns.protocol.federated:
        found = found.cap_detections_per_image(None)  # they are limited already, to more than hotcoco's 300 if wished
    evaluator = hotcoco.COCOeval(truth, found, columns.iou_type, lvis_style=columns.protocol.federated)
    _set_parameters(evaluator.params, columns)
    with warnings.catch_warnings(action="ignore"):  # of parameters that are not COCO's
        evaluator.evaluate()
    return evaluator


def by_pycocotools(columns: Columns) -> Any:
    """Match by pycocotools; see `match`."""
    truth_rows = [
        {"image_id": image, "category_id": label, "bbox": box, "area": area, "iscrowd": crowd}
        for image, label, box, area, crowd in zip(
            (columns.truth_images + 1).tolist(),
            (columns.truth_labels + 1).tolist(),
            columns.truth_boxes.tolist(),
            columns.truth_areas.tolist(),
            columns.crowd.astype(int).tolist(),
            strict=True,
        )
    ]
    found_rows = [
        {"image_id": image, "category_id": label, "bbox": box, "area": area, "iscrowd": 0, "score": score}
        for image, label, box, area, score in zip(
            (columns.found_images + 1).tolist(),
            (columns.found_labels + 1).tolist(),
            columns.found_boxes.tolist(),
            columns.found_areas.tolist(),
            columns.scores.tolist(),
            strict=True,
        )
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = _coco(columns, truth_rows, columns.truth_masks, columns.truth_keypoints)
        found = _coco(columns, found_rows, columns.found_masks, columns.found_keypoints)
        evaluator = _Evaluator(truth, found, columns)
        evaluator.evaluate()
    return evaluator


class _Evaluator(COCOeval):
    """pycocotools with boundary IoU and with LVIS's federated rules."""

    def __init__(self, truth: Any, found: Any, columns: Columns) -> None:
        super().__init__(truth, found, "segm" if columns.iou_type == "boundary" else columns.iou_type)
        self._columns = columns
        federation = columns.federation
        pairs = [] if federation is None else (federation.not_exhaustive + 1).tolist()
        self._not_exhaustive = {(image, label) for image, label in pairs}
        _set_parameters(self.params, columns)
        self.params.kpt_oks_sigmas = np.array(columns.sigmas)

    def computeIoU(self, imgId: int, catId: int) -> Any:  # noqa: N802, N803 - pycocotools' names
        """The overlaps of an image and class `[detections, objects]`."""
        ious = super().computeIoU(imgId, catId)
        if self._columns.iou_type != "boundary" or len(ious) == 0:
            return ious
        found, truth = self._pair(imgId, catId)
        return boundary_ious(ious, found, truth)

    def evaluateImg(self, imgId: int, catId: int, aRng: Any, maxDet: int) -> Any:  # noqa: N802, N803
        """The matches of an image and class."""
        cell = super().evaluateImg(imgId, catId, aRng, maxDet)
        if cell is not None and (imgId, catId) in self._not_exhaustive:
            # An object may be there without being annotated: what matches none is no mistake.
            cell["dtIgnore"] = np.logical_or(cell["dtIgnore"], cell["dtMatches"] == 0)
        return cell

    def accumulate(self, p: Any = None) -> None:
        """Precision and recall, without a word."""
        with contextlib.redirect_stdout(io.StringIO()):
            super().accumulate(p)

    def _pair(self, image: int, category: int) -> tuple[list[Any], list[Any]]:
        """Detections by descending score, up to the limit, and objects of an image and class."""
        categories = [category] if self.params.useCats else self.params.catIds
        found = [row for c in categories for row in self._dts[image, c]]
        truth = [row for c in categories for row in self._gts[image, c]]
        order = np.argsort([-row["score"] for row in found], kind="mergesort")
        return [found[k] for k in order[: self.params.maxDets[-1]]], truth


def _set_parameters(parameters: Any, columns: Columns) -> None:
    """Set pycocotools' `Params`, or hotcoco's, which has the same names."""
    protocol = columns.protocol
    parameters.imgIds = (columns.images + 1).tolist()
    parameters.catIds = (columns.labels + 1).tolist()
    parameters.iouThrs = np.array(protocol.iou_thresholds)
    parameters.maxDets = list(columns.limits)
    parameters.areaRng = [list(area) for area in protocol.areas.values()]
    parameters.areaRngLbl = [name or "all" for name in protocol.areas]
    parameters.useCats = int(not protocol.class_agnostic)


def _images(columns: Columns) -> list[dict[str, Any]]:
    images: list[dict[str, Any]] = [
        {"id": position + 1, "height": height, "width": width}
        for position, (height, width) in enumerate(columns.sizes.tolist())
    ]
    if columns.federation is not None:
        for key, pairs in (
            ("neg_category_ids", columns.federation.negative),
            ("not_exhaustive_category_ids", columns.federation.not_exhaustive),
        ):
            for image in images:
                image[key] = []
            for position, label in pairs.tolist():
                images[position][key].append(label + 1)
    return images


def _categories(columns: Columns) -> list[dict[str, Any]]:
    categories: list[dict[str, Any]] = [{"id": label + 1, "name": str(label)} for label in range(columns.num_classes)]
    if columns.federation is not None:
        for category, frequency in zip(categories, columns.federation.frequencies.tolist(), strict=True):
            category["frequency"] = frequency
    return categories


def _coco(columns: Columns, rows: list[dict[str, Any]], masks: list[Any], keypoints: np.ndarray | None) -> Any:
    for number, row in enumerate(rows):
        row["id"] = number + 1
        if masks:
            row["segmentation"] = masks[number]
    if keypoints is not None:
        for row, points in zip(rows, keypoints, strict=True):
            row["keypoints"] = points.reshape(-1).tolist()
            row["num_keypoints"] = int((points[:, 2] > 0).sum())
    coco = COCO()
    coco.dataset = {"images": _images(columns), "categories": _categories(columns), "annotations": rows}
    coco.createIndex()
    return coco
