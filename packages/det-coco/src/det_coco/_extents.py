"""Boxes around masks, all at once, and how they compare with other boxes."""

import numpy as np

from det_coco.polygons import Polygons
from det_coco.rle import bitmap_to_runs

# Instances whose runs are looked at together, which bounds the memory.
_AT_A_TIME = 4096


def mask_extents(masks: Polygons, sizes: np.ndarray) -> np.ndarray:
    """Measure the boxes around masks.

    Args:
        masks: of N instances.
        sizes: `[N, 4]` width, height, width, height of their images in pixels.

    Returns:
        float64 `[N, 4]` x1, y1, x2, y2; NaN where an instance has no mask.
    """
    extents = polygon_extents(masks)
    if not masks.runs.size:
        return extents
    for first in range(0, len(sizes), _AT_A_TIME):
        chosen = np.arange(first, min(first + _AT_A_TIME, len(sizes)))
        part = masks[chosen]
        if part.runs.size:
            runs = run_extents(part, sizes[chosen, 1], sizes[chosen, 0])
            extents[chosen] = np.where(np.isnan(extents[chosen]), runs, extents[chosen])
    return extents


def polygon_extents(masks: Polygons) -> np.ndarray:
    """Measure the boxes around polygons.

    Args:
        masks: of N instances.

    Returns:
        float64 `[N, 4]` x1, y1, x2, y2; NaN where an instance has no polygon.
    """
    bounds = masks.polygon_points[masks.instance_polygons]  # [N + 1]
    return _group_extents(masks.points, masks.points, bounds)


def run_extents(masks: Polygons, heights: np.ndarray, widths: np.ndarray, *, by_rows: bool = False) -> np.ndarray:
    """Measure the boxes around run-length masks.

    Args:
        masks: of N instances.
        heights: `[N]` of their images in pixels.
        widths: `[N]`.
        by_rows: read runs along the rows, as numpy and some exporters do, rather than along the columns as COCO does.

    Returns:
        float64 `[N, 4]` x1, y1, x2, y2 around the pixels; NaN where an instance has no run of ones.
    """
    counts = np.diff(masks.instance_runs)
    owner = np.repeat(np.arange(len(counts)), counts)  # [R]
    ends = np.cumsum(masks.runs, dtype=np.int64)
    before = np.concatenate(([0], ends))[masks.instance_runs[:-1]]  # [N] pixels of earlier instances
    place = np.arange(len(owner)) - np.repeat(masks.instance_runs[:-1], counts)
    ones = np.flatnonzero((place % 2 == 1) & (masks.runs > 0))
    owner = owner[ones]
    last = ends[ones] - before[owner] - 1
    first = last - masks.runs[ones] + 1
    length = (widths if by_rows else heights)[owner].astype(np.int64)
    line = np.stack((first // length, last // length), axis=1)  # [ones, 2]
    inside = np.stack((first % length, last % length), axis=1)
    inside[line[:, 0] < line[:, 1]] = 0, 0
    inside[:, 1] = np.where(line[:, 0] < line[:, 1], length - 1, inside[:, 1])
    x, y = (inside, line) if by_rows else (line, inside)
    bounds = np.searchsorted(owner, np.arange(len(counts) + 1))
    low, high = np.stack((x[:, 0], y[:, 0]), axis=1), np.stack((x[:, 1], y[:, 1]), axis=1) + 1
    return _group_extents(low.astype(np.float64), high.astype(np.float64), bounds)


def overlaps(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Compute the area that boxes share pair by pair.

    Args:
        one: `[N, 4]` x1, y1, x2, y2.
        other: the same.

    Returns:
        `[N]`; NaN where one is NaN.
    """
    low, high = np.maximum(one[:, :2], other[:, :2]), np.minimum(one[:, 2:], other[:, 2:])
    return (high - low).clip(0).prod(axis=1)


def agree(boxes: np.ndarray, extents: np.ndarray) -> np.ndarray:
    """Tell which boxes are those around masks, but for 2 pixels (a quarter of a small side) and 2 %.

    Args:
        boxes: `[N, 4]` x1, y1, x2, y2.
        extents: the same, of the masks.

    Returns:
        bool `[N]`.
    """
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    return np.all(np.abs(boxes - extents) <= np.minimum(2, 0.25 * sides) + 0.02 * sides, axis=1)


def inside(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Tell which boxes have an area and lie in their picture, but for 2 pixels.

    Args:
        boxes: `[N, 4]` x1, y1, x2, y2.
        sizes: `[N, 4]` width, height, width, height of their images in pixels.

    Returns:
        bool `[N]`.
    """
    good = (boxes[:, 2:] > boxes[:, :2]) & (boxes[:, :2] >= -2) & (boxes[:, 2:] <= sizes[:, 2:] + 2)  # [N, 2]
    return good[:, 0] & good[:, 1]


def owners(masks: Polygons) -> np.ndarray:
    """Look up the instance of each point: int64 `[P]`."""
    return np.repeat(np.arange(len(masks.instance_runs) - 1), np.diff(masks.polygon_points[masks.instance_polygons]))


def by_columns(masks: Polygons, sizes: np.ndarray) -> Polygons:
    """Bring run lengths along the rows to COCO's order.

    Args:
        masks: of N instances.
        sizes: `[N, 4]` width, height, width, height of their images in pixels.
    """
    counts = masks.instance_runs
    runs = []
    for n in range(len(sizes)):
        own = masks.runs[counts[n] : counts[n + 1]]
        bits = np.repeat((np.arange(len(own)) & 1).astype(np.uint8), own)
        runs.append(bitmap_to_runs(bits.reshape(int(sizes[n, 1]), int(sizes[n, 0]))) if own.size else own)
    return masks.with_runs(runs)


def _group_extents(low: np.ndarray, high: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Least of `low [P, 2]` and largest of `high [P, 2]` in each group of rows, which the bounds `[N + 1]` part."""
    extents = np.full((len(bounds) - 1, 4), np.nan)
    filled = np.flatnonzero(np.diff(bounds))
    if filled.size:
        extents[filled, :2] = np.minimum.reduceat(low, bounds[filled])
        extents[filled, 2:] = np.maximum.reduceat(high, bounds[filled])
    return extents
