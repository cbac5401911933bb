"""Ground truth and detections as the columns that an evaluator takes: checked, and numbered from 1.

Evaluators disagree on ids of 0 and -1, repeated ids, missing areas, NaN and empty masks. None of that reaches them:
ids are positions in the index plus one, areas are given, and masks are those that the index or `Detections` hold.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from det_coco._coco_api import coco_mask
from det_coco._column_checks import check_ids, check_keypoints, check_masks
from det_coco._describe import counted
from det_coco.annotations import CocoIndex
from det_coco.detections import Detections, extents
from det_coco.errors import DataError
from det_coco.lvis import Federation
from det_coco.protocol import Protocol, ResolvedProtocol
from det_coco.remarks import say_once

IOU_TYPES = ("bbox", "segm", "boundary", "keypoints")


@dataclass(frozen=True, kw_only=True, eq=False)
class Columns:
    """One evaluation: what there is to find, what was found, and the rules.

    `I` images, `C` classes, `N` objects, `K` detections; images and labels are positions in the index.

    Attributes:
        iou_type: one of `IOU_TYPES`.
        protocol: the rules.
        sizes: int64 `[I, 2]` height, width.
        images: positions to evaluate, ascending.
        labels: classes to evaluate, ascending.
        num_classes: C.
        truth_rows: int64 `[N]` rows in the index.
        truth_images, truth_labels: int64 `[N]`.
        truth_boxes: float64 `[N, 4]` x, y, width, height.
        truth_areas: float64 `[N]`.
        crowd: bool `[N]`.
        truth_masks: N lists of polygons or run-length codes, where masks are compared; else empty.
        truth_keypoints: `[N, J, 3]`, where keypoints are compared.
        found_rows: int64 `[K]` rows in the `Detections`.
        found_images, found_labels: int64 `[K]`.
        found_boxes: float64 `[K, 4]` x, y, width, height.
        scores: float64 `[K]`.
        found_areas: float64 `[K]`: of what is compared: boxes, masks, or the extents of keypoints.
        found_masks: K run-length codes, where masks are compared; else empty.
        found_keypoints: float64 `[K, J, 3]`, where keypoints are compared.
        sigmas: the J tolerances of keypoints.
        federation: of the split, where the protocol is federated.
    """

    iou_type: str
    protocol: ResolvedProtocol
    sizes: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    num_classes: int
    truth_rows: np.ndarray
    truth_images: np.ndarray
    truth_labels: np.ndarray
    truth_boxes: np.ndarray
    truth_areas: np.ndarray
    crowd: np.ndarray
    truth_masks: list[Any] = field(repr=False)
    found_rows: np.ndarray
    found_images: np.ndarray
    found_labels: np.ndarray
    found_boxes: np.ndarray
    scores: np.ndarray
    found_areas: np.ndarray
    found_masks: list[dict[str, Any]] = field(repr=False)
    truth_keypoints: np.ndarray | None = None
    found_keypoints: np.ndarray | None = None
    sigmas: tuple[float, ...] = ()
    federation: Federation | None = None

    @cached_property
    def limits(self) -> tuple[int, ...]:
        """Numbers of detections at which recall is computed, ascending; see `Protocol.limits`."""
        most = np.bincount(self.found_images).max(initial=0)
        limits = self.protocol.limits(int(most))
        return limits[-1:] if self.iou_type == "keypoints" else limits

    def of(self, labels: np.ndarray) -> "Columns":
        """The part that is about some classes."""
        part = self.part(np.isin(self.truth_labels, labels), np.isin(self.found_labels, labels))
        return replace(part, labels=labels)

    def part(self, truth: np.ndarray, found: np.ndarray) -> "Columns":
        """The part that is about some objects, bool `[N]`, and some detections, bool `[K]`."""
        chosen = {"truth": truth, "crowd": truth, "found": found, "scores": found}
        changes: dict[str, Any] = {}
        for entry in fields(self):
            value, rows = getattr(self, entry.name), chosen.get(entry.name.partition("_")[0])
            if rows is not None and value is not None and len(value):
                is_list = isinstance(value, list)
                changes[entry.name] = [value[n] for n in np.flatnonzero(rows)] if is_list else value[rows]
        return replace(self, **changes)


def make_columns(
    index: CocoIndex,
    detections: Detections,
    iou_type: str,
    protocol: Protocol,
    image_ids: Iterable[int] | None = None,
) -> Columns:
    """Check and number what an evaluation compares.

    Args:
        index: the split.
        detections: of the split.
        iou_type: one of `IOU_TYPES`.
        protocol: the rules.
        image_ids: evaluate on these images only.

    Raises:
        DataError: the detections do not belong to the split, or one side lacks the masks that are compared, or the
            split lacks what the protocol needs; names the first detection that is wrong.
        ValueError: the IoU type is unknown.
    """
    if iou_type not in IOU_TYPES:
        raise ValueError(f"iou_types must be {', '.join(IOU_TYPES)} or several of them, got {iou_type!r}.")
    rules = protocol.resolved(iou_type)
    if protocol.federated and index.federation is None:
        raise DataError(
            f"{index.annotation_file} has no 'neg_category_ids', so it cannot be evaluated by LVIS's rules. "
            "Evaluate it by COCO's."
        )
    if protocol.federated and iou_type == "keypoints":
        raise DataError("LVIS has no keypoints: evaluate them by COCO's rules.")
    images, labels = check_ids(index, detections)
    masks = iou_type in ("segm", "boundary")
    mask_areas = check_masks(index, detections, images) if masks else None
    rles = detections.rles() if masks else []
    scores = detections.mask_scores if masks and detections.mask_scores is not None else detections.scores
    boxes = detections.boxes
    points: dict[str, Any] = {}
    if iou_type == "keypoints":
        points = check_keypoints(index, detections)
        boxes = extents(points["found_keypoints"])
    areas = boxes[:, 2] * boxes[:, 3] if mask_areas is None else mask_areas
    # Like lvis, which never sees what has no area.
    objects = np.flatnonzero(index.areas > 0) if protocol.federated else np.arange(index.num_instances)
    truth_images = np.repeat(np.arange(len(index)), np.diff(index.image_instances))[objects]
    kept = np.arange(len(detections))
    if protocol.federated and index.federation is not None:
        pairs = np.stack((truth_images, index.labels[objects]), axis=1)
        searched = np.concatenate((pairs, index.federation.negative))
        kept = _federated(images, labels, scores, searched, rules.max_detections)
        kept = kept[areas[kept] > 0]
    truth_masks = _truth_masks(index) if masks else []
    return Columns(
        iou_type=iou_type,
        protocol=rules,
        sizes=np.stack((index.heights, index.widths), axis=1).astype(np.int64),
        images=_positions(index, image_ids),
        labels=chosen_labels(index, protocol),
        num_classes=index.num_classes,
        truth_rows=objects,
        truth_images=truth_images,
        truth_labels=index.labels[objects],
        truth_boxes=index.file_boxes[objects],
        truth_areas=index.areas[objects],
        # LVIS knows no crowds: its evaluation does not look at `iscrowd`.
        crowd=np.zeros(len(objects), dtype=bool) if protocol.federated else index.crowd | _maskless(index, masks),
        truth_masks=[truth_masks[n] for n in objects] if masks else [],
        found_rows=kept,
        found_images=images[kept],
        found_labels=labels[kept],
        found_boxes=boxes[kept],
        scores=scores[kept],
        found_areas=areas[kept],
        found_masks=[rles[k] for k in kept] if masks else [],
        federation=index.federation if protocol.federated else None,
        **points,
    )


def chosen_labels(index: CocoIndex, protocol: Protocol) -> np.ndarray:
    """Labels of the classes that a protocol evaluates, ascending.

    Args:
        index: the split.
        protocol: names classes or category ids.

    Raises:
        DataError: a class is unknown.
    """
    if protocol.classes is None:
        return np.arange(index.num_classes)
    labels: set[int] = set()
    for wanted in protocol.classes:
        found = [n for n, (id_, name) in enumerate(index.categories.items()) if wanted in (id_, name)]
        if not found:
            known = ", ".join(index.class_names[:12]) + (", ..." if index.num_classes > 12 else "")
            raise DataError(f"{index.annotation_file} has no class {wanted!r}. It has: {known}.")
        labels.update(found)
    return np.array(sorted(labels))


def _positions(index: CocoIndex, image_ids: Iterable[int] | None) -> np.ndarray:
    if image_ids is None:
        return np.arange(len(index))
    return np.array([index.position(image_id) for image_id in sorted(set(map(int, image_ids)))], dtype=np.int64)


def _maskless(index: CocoIndex, masks: bool) -> np.ndarray:
    """Tell which objects cannot be compared because they have no mask: bool `[N]`, neither found nor missed."""
    without = (index.polygon_counts == 0) & masks
    if without.any():
        share = f"{index.annotation_file}: {without.sum()} of {counted(len(without), 'object')}"
        have = "has no mask and is" if without.sum() == 1 else "have no mask and are"
        say_once(index, "no mask", f"{share} {have} left out of the evaluation of masks.")
    return without


def _truth_masks(index: CocoIndex) -> list[Any]:
    """Polygons or a compressed run-length code of each object; the box stands in where there is no mask."""
    m = index.masks
    points = m.points.reshape(-1).tolist()
    ends, owners = (2 * m.polygon_points).tolist(), m.instance_polygons.tolist()
    masks: list[Any] = [
        [points[ends[q] : ends[q + 1]] for q in range(owners[n], owners[n + 1])] for n in range(index.num_instances)
    ]
    heights = np.repeat(index.heights, np.diff(index.image_instances))
    widths = np.repeat(index.widths, np.diff(index.image_instances))
    for n in np.flatnonzero(np.diff(m.instance_runs)).tolist():
        size = [int(heights[n]), int(widths[n])]
        runs = m.runs[m.instance_runs[n] : m.instance_runs[n + 1]].tolist()
        masks[n] = coco_mask.frPyObjects({"size": size, "counts": runs}, *size)
    for n, mask in enumerate(masks):
        if not mask:
            x, y, w, h = index.file_boxes[n].tolist()
            masks[n] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    return masks


def _federated(
    images: np.ndarray, labels: np.ndarray, scores: np.ndarray, searched: np.ndarray, limit: int | None
) -> np.ndarray:
    """Choose the detections that LVIS looks at.

    The limit comes first, over all classes of an image; then what is of a class that the image was not searched for
    falls out.

    Args:
        images: positions `[K]`.
        labels: `[K]`.
        scores: `[K]`.
        searched: `[P, 2]` pairs of image position and label that have been searched.
        limit: detections that count in an image, or None.

    Returns:
        rows of the detections, ascending.
    """
    kept = np.arange(len(images))
    if limit is not None:
        order = np.lexsort((kept, -scores, images))
        ranks = kept - np.searchsorted(images[order], images[order])
        kept = np.sort(order[ranks < limit])
    width = max(labels.max(initial=0), searched[:, 1].max(initial=0)) + 1
    return kept[np.isin(images[kept] * width + labels[kept], searched[:, 0] * width + searched[:, 1])]
