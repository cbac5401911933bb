"""Weighted boxes fusion: what several looks find of an object becomes one box between theirs."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Boxes", "fused"]


class Boxes(NamedTuple):
    """What one look found, or what was made of several.

    Attributes:
        boxes: floating [N, 4], x1, y1, x2, y2.
        scores: floating [N].
        labels: int64 [N].
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


def fused(looks: Sequence[Boxes], threshold: float = 0.55) -> Boxes:
    """Fuse the boxes of several looks at a picture, or of several detectors.

    A box joins the fused one of its class that it overlaps most, which is then the mean of its members, weighted by
    their scores; best boxes come first. The score is the mean of the members', less where not every look has one.

    Source: Solovyev et al., Weighted boxes fusion, Image and Vision Computing 2021, arXiv:1910.13302; the numbers are
    those of their package ensemble-boxes with equal weights.

    Args:
        looks: M, each with its boxes, in the same pixels.
        threshold: IoU above which boxes are of one object.

    Returns:
        the fused boxes in float64, best first.
    """
    boxes, scores, labels = (np.concatenate(part).astype(np.float64) for part in zip(*looks, strict=True))
    order = np.argsort(-scores, kind="stable")
    order = order[((boxes[order, 2:] - boxes[order, :2]) > 0).all(1)]
    found = np.zeros((len(order), 4))
    totals, counts, classes = np.zeros(len(order)), np.zeros(len(order), dtype=np.int64), np.full(len(order), -1.0)
    number = 0
    for row in order:
        overlap = np.where(classes[:number] == labels[row], _iou(boxes[row], found[:number]), 0.0)
        place = int(overlap.argmax()) if number else 0
        if not number or overlap[place] <= threshold:
            place, number = number, number + 1
        total = totals[place] + scores[row]
        if not counts[place]:
            found[place] = boxes[row]
        elif total > 0:  # else no member has a weight
            found[place] = (totals[place] * found[place] + scores[row] * boxes[row]) / total
        totals[place], classes[place] = total, labels[row]
        counts[place] += 1
    means = totals[:number] / counts[:number] * np.minimum(counts[:number], len(looks)) / len(looks)
    best = np.argsort(-means, kind="stable")
    return Boxes(found[best], means[best], classes[best].astype(np.int64))


def _iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU [N] of a box [4] with others [N, 4], none of which is empty."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = sides.clip(min=0).prod(1)
    return shared / ((box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(1) - shared)
