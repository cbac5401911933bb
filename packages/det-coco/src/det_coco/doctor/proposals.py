"""Options that fit a data set: what anchors, sizes and shapes its boxes and images ask for.

`N` boxes, `L` levels of a pyramid, `A` anchors. Boxes are widths and heights in the pixels that the detector sees.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from det_coco.annotations import CocoIndex
from det_coco.resize import Resize

MATCH = 0.5
"""IoU of a box and its best anchor from which the anchor can learn it."""
_GAIN = 0.02
"""Recall that other anchors must add to be worth leaving a published recipe."""
_SMALL = 8.0
_CELL = 32
Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Proposal:
    """An option with the value that fits.

    Attributes:
        option: as on the command line.
        value: as on the command line.
        reason: a clause.
    """

    option: str
    value: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Proposals:
    """What is proposed for a data set.

    Attributes:
        command: a command line to paste.
        changed: the options in it that differ from the recipe.
        kept: sentences on what fits as it is.
    """

    command: str
    changed: Sequence[Proposal]
    kept: Sequence[str] = field(default=())


def seen_boxes(index: CocoIndex, resize: Resize, short: int) -> np.ndarray:
    """Widths and heights of the objects of a split as a detector sees them.

    Args:
        index: the split.
        resize: to the sizes of the detector.
        short: the shorter side that is aimed at, one of the resize's.

    Returns:
        float64 `[N, 2]` pixels.
    """
    image = np.repeat(np.arange(len(index)), np.diff(index.image_instances))
    scales = np.array([_scale(int(h), int(w), resize, short) for h, w in zip(index.heights, index.widths, strict=True)])
    free = ~index.crowd
    sides = (index.boxes[:, 2:] - index.boxes[:, :2]).astype(np.float64)
    return (sides * scales.reshape(-1, 2)[image][:, ::-1])[free]


def anchor_recall(boxes: np.ndarray, sizes: Sequence[float], ratios: Sequence[float]) -> float:
    """Share of boxes that some anchor fits: an IoU of at least 0.5 when both have one centre.

    Args:
        boxes: float64 `[N, 2]` width, height.
        sizes: square roots of the anchors' areas.
        ratios: height by width.
    """
    if not len(boxes):
        return 1.0
    size, ratio = (grid.ravel() for grid in np.meshgrid(sizes, ratios))
    anchors = np.stack((size / np.sqrt(ratio), size * np.sqrt(ratio)), axis=1)  # [A, 2]
    best = np.zeros(len(boxes))
    for anchor in anchors:
        shared = np.minimum(boxes, anchor).prod(axis=1)
        best = np.maximum(best, shared / (boxes.prod(axis=1) + anchor.prod() - shared))
    return float((best >= MATCH).mean())


def propose_anchors(
    boxes: np.ndarray, sizes: Sequence[Sequence[float]], ratios: Sequence[float], *, free_ratios: bool = True
) -> tuple[tuple[tuple[float, ...], ...], tuple[float, ...], float] | None:
    """Choose anchors by the distribution of the boxes.

    Sizes keep their relation to each other and to the strides of the levels: all are multiplied by one factor. There
    are as many ratios as before, the recipe's or those at the quantiles of the boxes' own.

    Args:
        boxes: float64 `[N, 2]` width, height.
        sizes: of a recipe, some for each of the L levels.
        ratios: of the recipe, height by width.
        free_ratios: whether the ratios may change.

    Returns:
        (sizes, ratios, their recall), or None where they would not add 2 % to the recipe's.
    """
    if not len(boxes):
        return None
    shares = (np.arange(len(ratios)) + 0.5) / len(ratios)
    own = tuple(round(float(r), 2) for r in np.quantile(boxes[:, 1] / boxes[:, 0], shares))
    tries = [
        (tuple(tuple(round(size * factor, 1) for size in level) for level in sizes), chosen)
        for factor in np.geomspace(1 / 8, 4, 41).tolist()
        for chosen in [tuple(ratios)] + [own] * free_ratios
    ]
    recalls = [anchor_recall(boxes, list(chain.from_iterable(levels)), chosen) for levels, chosen in tries]
    best = int(np.argmax(recalls))
    before = anchor_recall(boxes, list(chain.from_iterable(sizes)), ratios)
    return (*tries[best], recalls[best]) if recalls[best] >= before + _GAIN else None


def propose_size(sides: np.ndarray, size: int, native: float) -> int | None:
    """Choose the size that images are resized to.

    Larger where a tenth of the objects has sides below 8 pixels, two cells of the finest level, up to twice the
    pictures' own; smaller where pictures are enlarged to more than that though their objects are large.

    Args:
        sides: float64 `[N]` square roots of the areas of the boxes at `size`.
        size: the shorter side that a recipe aims at.
        native: median of the pictures' own shorter sides.

    Returns:
        a multiple of 32; None where the recipe's fits.
    """
    if not len(sides):
        return None
    small = float(np.quantile(sides, 0.1))
    if small < _SMALL:
        wanted = min(size * _SMALL / max(small, 1e-6), 2 * native)
        return _up(round(wanted)) if wanted > 1.2 * size else None
    reduced = max(2 * native, size * 4 * _SMALL / small)
    return _up(round(reduced)) if reduced < size / 1.5 else None


def propose_buckets(
    indexes: Sequence[CocoIndex], resize: Resize, buckets: Sequence[Size], most: int = 6
) -> tuple[tuple[Size, ...], float] | None:
    """Choose shapes of batches that leave less of them empty.

    Args:
        indexes: splits.
        resize: of the training.
        buckets: (height, width) of the recipe, which hold every image.
        most: buckets to propose at most.

    Returns:
        (buckets, share of pixels that they save), or None where that is less than a tenth.
    """
    own = np.concatenate([np.stack((index.heights, index.widths), axis=1) for index in indexes])
    own, counts = np.unique(own, axis=0, return_counts=True)
    scaled = [(_scale(h, w, resize, short), h, w) for short in resize.shortest for h, w in own.tolist()]
    seen = np.array([(round(h * y), round(w * x)) for (y, x), h, w in scaled], dtype=np.int64).reshape(-1, 2)
    weight = np.tile(counts, len(resize.shortest)).astype(np.float64)
    candidates = {(_up(h), _up(w)) for h, w in seen.tolist()}
    chosen = list(buckets)
    first = cost = _padded(seen, weight, chosen)
    while len(chosen) < most and candidates:
        costs = {bucket: _padded(seen, weight, [*chosen, bucket]) for bucket in candidates}
        best = min(costs, key=lambda bucket: costs[bucket])
        if costs[best] > 0.97 * cost:
            break
        chosen.append(best)
        cost = costs[best]
    saved = 1 - cost / first
    return (tuple(sorted(chosen)), saved) if saved >= 0.1 else None


def _padded(seen: np.ndarray, weight: np.ndarray, buckets: Sequence[Size]) -> float:
    """Pixels of batches, each image in the smallest bucket that holds it."""
    areas = np.full(len(seen), np.inf)
    for height, width in buckets:
        fits = (seen <= [height, width]).all(axis=1)
        areas = np.where(fits, np.minimum(areas, height * width), areas)
    return float((areas * weight)[np.isfinite(areas)].sum())


def _scale(height: int, width: int, resize: Resize, short: int) -> tuple[float, float]:
    """(y, x) that an image is resized by, up to rounding."""
    if resize.rule == "yolact":
        return short / height, short / width
    scale = min(short / min(height, width), resize.longest / max(height, width))
    return scale, scale


def _up(length: int) -> int:
    return -(-length // _CELL) * _CELL
