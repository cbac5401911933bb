"""Detections of one object, found in several views of a picture, made one."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from det_coco.mask_windows import union
from det_models.detections import Detections

__all__ = ["Match", "best", "joined", "together"]

Match = Literal["ios", "iou"]
"""How the overlap of two boxes is measured: intersection over the smaller area, or over the union."""


def together(parts: Sequence[Detections]) -> Detections:
    """All detections of several views of a picture, in its pixels, best first; equal scores in the order of the views.

    Args:
        parts: One or more, of the same detector and of pictures of the same size.
    """
    names = ("boxes", "scores", "labels", "category_ids", "mask_scores")
    present = [name for name in names if getattr(parts[0], name) is not None]
    columns: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in present}
    extra = {name: np.concatenate([part.extra[name] for part in parts]) for name in parts[0].extra}
    rle = None if parts[0].rle is None else [rle for part in parts for rle in part.rle or ()]
    order = np.argsort(-columns["scores"], kind="stable")
    return replace(parts[0], **columns, extra=extra, rle=rle)[order]


def best(found: Detections, match: Match, threshold: float) -> Detections:
    """Leave out what overlaps a better one of its class: non-maximum suppression.

    Args:
        found: K detections, best first.
        match: How overlap is measured.
        threshold: Overlap from which on two are one.
    """
    return found[[group[0] for group in _groups(found, match, threshold)]]


def joined(found: Detections, match: Match, threshold: float) -> Detections:
    """Give each detection the boxes and masks of worse ones of its class that it overlaps.

    It keeps its score and whatever else it has. This is sahi's greedy non-maximum merging: what overlaps is chosen by
    the box as it was found, but has to overlap the one that has grown, too.

    Args:
        found: K detections, best first.
        match: How overlap is measured.
        threshold: Overlap from which on two are one.
    """
    boxes, rle = found.boxes.copy(), None if found.rle is None else list(found.rle)
    kept = []
    for first, *others in _groups(found, match, threshold):
        kept.append(first)
        members = [first]
        for other in others:
            if _overlaps(boxes[first], boxes[other : other + 1], match)[0] >= threshold:
                np.minimum(boxes[first, :2], boxes[other, :2], out=boxes[first, :2])
                np.maximum(boxes[first, 2:], boxes[other, 2:], out=boxes[first, 2:])
                members.append(other)
        if rle is not None and len(members) > 1:
            rle[first] = union([rle[member] for member in members])
    return replace(found, boxes=boxes, rle=rle)[kept]


def _groups(found: Detections, match: Match, threshold: float) -> Iterator[list[int]]:
    """Rows that are one object: one that no better one overlaps, and those that it overlaps, best first."""
    boxes, labels = found.boxes.astype(np.float64), found.labels
    # Only boxes whose left sides are near can overlap; a big picture has many that are not.
    by_left = np.argsort(boxes[:, 0], kind="stable")
    lefts, widest = boxes[by_left, 0], (boxes[:, 2] - boxes[:, 0]).max(initial=0)
    begins, ends = np.searchsorted(lefts, boxes[:, 0] - widest), np.searchsorted(lefts, boxes[:, 2])
    free = np.ones(len(found), dtype=bool)
    for row in range(len(found)):
        if free[row]:
            near = np.sort(by_left[begins[row] : ends[row]])
            near = near[free[near] & (near > row) & (labels[near] == labels[row])]
            same = near[_overlaps(boxes[row], boxes[near], match) >= threshold]
            free[same] = False
            yield [row, *same.tolist()]


def _overlaps(box: np.ndarray, boxes: np.ndarray, match: Match) -> np.ndarray:
    """Overlap [N] of a box [4] with others [N, 4], none of which is empty."""
    box, boxes = box.astype(np.float64), boxes.astype(np.float64)
    sides = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
    shared = sides.clip(min=0).prod(axis=1)
    own, areas = (box[2:] - box[:2]).prod(), (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return shared / (np.minimum(own, areas) if match == "ios" else own + areas - shared)
