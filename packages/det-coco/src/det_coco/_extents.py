"""Boxes around masks, all at once."""

import numpy as np

from det_coco.polygons import Polygons


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


def ious(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Compute the IoU of boxes pair by pair.

    Args:
        one: `[N, 4]` x1, y1, x2, y2.
        other: the same.

    Returns:
        `[N]`, 0 where a box has no area; NaN where one is NaN.
    """
    low, high = np.maximum(one[:, :2], other[:, :2]), np.minimum(one[:, 2:], other[:, 2:])
    overlap = (high - low).clip(0).prod(axis=1)
    area = sum((box[:, 2:] - box[:, :2]).clip(0).prod(axis=1) for box in (one, other))
    return overlap / np.maximum(area - overlap, np.finfo(np.float64).tiny)


def _group_extents(low: np.ndarray, high: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Least of `low [P, 2]` and largest of `high [P, 2]` in each group of rows, which the bounds `[N + 1]` part."""
    extents = np.full((len(bounds) - 1, 4), np.nan)
    filled = np.flatnonzero(np.diff(bounds))
    if filled.size:
        extents[filled, :2] = np.minimum.reduceat(low, bounds[filled])
        extents[filled, 2:] = np.maximum.reduceat(high, bounds[filled])
    return extents
