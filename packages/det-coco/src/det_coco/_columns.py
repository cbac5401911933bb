"""Ground truth and detections as the columns that an evaluator takes: checked, and numbered from 1.

Evaluators disagree on ids of 0 and -1, repeated ids, missing areas, NaN and empty masks. None of that reaches them:
ids are positions in the index plus one, areas are given, and masks are those that the index or `Detections` hold.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from det_coco._coco_api import coco_mask
from det_coco.annotations import CocoIndex
from det_coco.detections import Detections, extents
from det_coco.errors import DataError
from det_coco.lvis import Federation
from det_coco.protocol import Protocol

_log = logging.getLogger("det_coco")

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
        truth_images, truth_labels: int64 `[N]`.
        truth_boxes: float64 `[N, 4]` x, y, width, height.
        truth_areas: float64 `[N]`.
        crowd: bool `[N]`.
        truth_masks: N lists of polygons or run-length codes, where masks are compared; else empty.
        truth_keypoints: `[N, J, 3]`, where keypoints are compared.
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
    protocol: Protocol
    sizes: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    num_classes: int
    truth_images: np.ndarray
    truth_labels: np.ndarray
    truth_boxes: np.ndarray
    truth_areas: np.ndarray
    crowd: np.ndarray
    truth_masks: list[Any] = field(repr=False)
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
    if protocol.federated and index.federation is None:
        raise DataError(
            f"{index.annotation_file} has no 'neg_category_ids', so it cannot be evaluated by LVIS's rules. "
            "Evaluate it by COCO's."
        )
    if protocol.federated and iou_type == "keypoints":
        raise DataError("LVIS has no keypoints: evaluate them by COCO's rules.")
    images, labels = _check(index, detections)
    masks = iou_type in ("segm", "boundary")
    if masks:
        _check_masks(index, detections, images)
    rles = detections.rles() if masks else []
    scores = detections.mask_scores if masks and detections.mask_scores is not None else detections.scores
    boxes = detections.boxes
    points: dict[str, Any] = {}
    if iou_type == "keypoints":
        points = _keypoints(index, detections)
        boxes = extents(points["found_keypoints"])
    areas = _mask_areas(rles) if masks else boxes[:, 2] * boxes[:, 3]
    # Like lvis, which never sees what has no area.
    objects = np.flatnonzero(index.areas > 0) if protocol.federated else np.arange(index.num_instances)
    truth_images = np.repeat(np.arange(len(index)), np.diff(index.image_instances))[objects]
    kept = np.arange(len(detections))
    if protocol.federated and index.federation is not None:
        pairs = np.stack((truth_images, index.labels[objects]), axis=1)
        searched = np.concatenate((pairs, index.federation.negative))
        kept = _federated(images, labels, scores, searched, protocol.max_detections)
        kept = kept[areas[kept] > 0]
    truth_masks = _truth_masks(index) if masks else []
    return Columns(
        iou_type=iou_type,
        protocol=protocol,
        sizes=np.stack((index.heights, index.widths), axis=1).astype(np.int64),
        images=_positions(index, image_ids),
        labels=chosen_labels(index, protocol),
        num_classes=index.num_classes,
        truth_images=truth_images,
        truth_labels=index.labels[objects],
        truth_boxes=index.file_boxes[objects],
        truth_areas=index.areas[objects],
        # LVIS knows no crowds: its evaluation does not look at `iscrowd`.
        crowd=np.zeros(len(objects), dtype=bool) if protocol.federated else index.crowd | _maskless(index, masks),
        truth_masks=[truth_masks[n] for n in objects] if masks else [],
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


def _check(index: CocoIndex, detections: Detections) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the images and labels of the classes of the detections."""
    images, known = _find(index.image_ids, detections.image_ids)
    if not known.all():
        first = int(np.flatnonzero(~known)[0])
        raise DataError(
            f"{int((~known).sum())} results belong to images that are not in {index.annotation_file}, for example "
            f"image {detections.image_ids[first]} (result {first}). Evaluate them on the split they were made on."
        )
    ids = np.array(index.category_ids, dtype=np.int64)
    labels, known = _find(ids, detections.category_ids)
    if not known.all():
        first = int(np.flatnonzero(~known)[0])
        some = ", ".join(map(str, ids[:12])) + (", ..." if len(ids) > 12 else "")
        raise DataError(
            f"{int((~known).sum())} results have a category id that is not in {index.annotation_file}, for example "
            f"{detections.category_ids[first]} (result {first}); it has {some}. Results have the ids of the file, not "
            "positions in it."
        )
    for name, values in (("bbox", detections.boxes.sum(axis=1)), ("score", detections.scores)):
        broken = np.flatnonzero(~np.isfinite(values))
        if broken.size:
            raise DataError(f"'{name}' of result {broken[0]} (image {detections.image_ids[broken[0]]}) is not finite.")
    return images, labels


def _find(known: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of values in an ascending array, and whether they are there."""
    places = np.searchsorted(known, wanted)
    inside = np.minimum(places, len(known) - 1)
    return inside, known[inside] == wanted


def _check_masks(index: CocoIndex, detections: Detections, images: np.ndarray) -> None:
    if len(detections) and detections.mask_sizes is None:
        raise DataError("Results without 'segmentation' cannot be evaluated as masks. Evaluate bbox alone.")
    if index.num_instances and not index.has_masks:
        raise DataError(f"{index.annotation_file} has no masks to evaluate masks against. Evaluate bbox alone.")
    if detections.mask_sizes is None:
        return
    sizes = np.stack((index.heights, index.widths), axis=1)[images]
    other = np.flatnonzero((detections.mask_sizes != sizes).any(axis=1))
    if other.size:
        first = int(other[0])
        raise DataError(
            f"{len(other)} results have masks of another size than their image, for example result {first} (image "
            f"{detections.image_ids[first]}): {detections.mask_sizes[first].tolist()} instead of "
            f"{sizes[first].tolist()} (height, width). Bring masks to the size of the original image."
        )


def _maskless(index: CocoIndex, masks: bool) -> np.ndarray:
    """Tell which objects cannot be compared because they have no mask: bool `[N]`, neither found nor missed."""
    without = (index.polygon_counts == 0) & masks
    if without.any():
        _log.warning(
            "%s: %d of %d objects have no mask. They are left out of the evaluation of masks.",
            index.annotation_file, int(without.sum()), len(without),
        )  # fmt: skip
    return without


def _keypoints(index: CocoIndex, detections: Detections) -> dict[str, Any]:
    if index.skeleton is None:
        raise DataError(f"{index.annotation_file} has no keypoints to evaluate against. Evaluate bbox alone.")
    count = len(index.skeleton.names)
    found = detections.keypoints
    if found is None:
        if len(detections):
            raise DataError("Results without 'keypoints' cannot be evaluated as keypoints. Evaluate bbox alone.")
        found = np.zeros((0, count, 3))
    if found.shape[1] != count:
        raise DataError(
            f"Results have {found.shape[1]} keypoints, but {index.annotation_file} lists {count}. Evaluate bbox alone."
        )
    return {"truth_keypoints": index.keypoints, "found_keypoints": found, "sigmas": index.skeleton.sigmas}


def _mask_areas(rles: Sequence[dict[str, Any]]) -> np.ndarray:
    # pycocotools fails on more than 255 codes at a time (it puts their number into 8 bits).
    parts = [coco_mask.area(rles[k : k + 255]) for k in range(0, len(rles), 255)]
    return np.concatenate(parts).astype(np.float64) if parts else np.zeros(0)


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
