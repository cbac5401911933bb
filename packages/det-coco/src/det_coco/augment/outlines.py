"""Outlines as sets of line segments, which maps, cuts and fillings need in no order.

An outline of `E` segments covers the points above which an odd number of its segments passes. A region is a convex
polygon of `K` corners in order, either way round.
"""

import numpy as np

from det_coco._polygon_geometry import clip_polygon

# Points nearer than this to the horizon of a perspective lie beyond it; 1 at the centre of the picture.
_HORIZON = 1e-3
# Distance in pixels up to which a point lies on the line that an outline is cut at.
_ON_THE_LINE = 1e-6


def map_points(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Carry points `[..., 2]` x, y along a projective map `[3, 3]`: float64 `[..., 2]`."""
    mapped = points @ matrix[:, :2].T + matrix[:, 2]  # [..., 3]
    return mapped[..., :2] / mapped[..., 2:]


def map_edges(matrix: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Carry an outline along a projective map, without what lies beyond its horizon.

    Args:
        matrix: `[3, 3]`, from x, y, 1 to new ones times a factor.
        edges: `[E, 4]` x1, y1, x2, y2.

    Returns:
        float64 `[E, 4]`, as many as before where the map is affine.
    """
    edges = edges.astype(np.float64)
    if matrix[2, :2].any():
        edges = _cut(edges, matrix[2, :2], matrix[2, 2] - _HORIZON)
    return map_points(matrix, edges.reshape(-1, 2)).reshape(-1, 4)


def box_edges(box: np.ndarray) -> np.ndarray:
    """Outline of a box: float64 `[4, 4]` segments from `[4]` x1, y1, x2, y2."""
    x1, y1, x2, y2 = box
    corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], dtype=np.float64)
    return np.concatenate((corners, np.roll(corners, -1, axis=0)), axis=1)


def clip_edges(edges: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Cut an outline to a region; where it is cut it is closed along the border.

    Args:
        edges: float64 `[E, 4]`, a closed outline.
        region: float64 `[K, 2]`.

    Returns:
        float64 `[E, 4]`, of another number.
    """
    if not len(region):
        return edges[:0]
    for normal, offset in zip(*_sides(region), strict=True):
        edges = _cut(edges, normal, offset)
    return edges


def inside(points: np.ndarray, region: np.ndarray, tolerance: float = 1e-3) -> np.ndarray:
    """Say which points `[N, 2]` lie in a region `[K, 2]`, or as near to it as the tolerance in pixels: bool `[N]`."""
    if not len(region):
        return np.zeros(len(points), dtype=bool)
    normals, offsets = _sides(region)
    return np.all(points @ normals.T + offsets >= -tolerance, axis=1)


def bounds(edges: np.ndarray) -> np.ndarray:
    """Box around an outline: `[4]` x1, y1, x2, y2, all 0 where it is empty."""
    if not len(edges):
        return np.zeros(4)
    points = edges.reshape(-1, 2)
    return np.concatenate((points.min(axis=0), points.max(axis=0)))


def rectangle(height: float, width: float) -> np.ndarray:
    """The region `[4, 2]` of a whole picture."""
    return np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float64)


def visible_region(region: np.ndarray, height: float, width: float) -> np.ndarray:
    """The part `[K, 2]` of a region that lies in a picture; no corner where none does."""
    return clip_polygon(region, (0, 0), (width, height))


def fill(edges: np.ndarray, height: int, width: int, left: int = 0, top: int = 0) -> np.ndarray:
    """Find the pixels whose centre an outline covers.

    Args:
        edges: `[E, 4]` x1, y1, x2, y2; vertical ones make no difference.
        height: h, rows of the window that is looked at.
        width: w, columns of the window.
        left: first column of the window.
        top: first row of the window.

    Returns:
        bool `[h, w]`.
    """
    x1, y1, x2, y2 = (edges - np.array([left, top] * 2)).T
    first = np.clip(np.ceil(np.minimum(x1, x2) - 0.5), 0, width).astype(np.int64)
    last = np.clip(np.ceil(np.maximum(x1, x2) - 0.5), 0, width).astype(np.int64)
    counts = last - first  # [E] columns whose middle each crosses
    column = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts - first, counts)
    crossing = counts > 0
    slope = (y2 - y1)[crossing] / (x2 - x1)[crossing]
    y = np.repeat(y1[crossing], counts[crossing])
    y = y + (column + 0.5 - np.repeat(x1[crossing], counts[crossing])) * np.repeat(slope, counts[crossing])
    row = np.clip(np.ceil(y - 0.5), 0, height).astype(np.int64)
    # Below an odd number of crossings a pixel is covered.
    turns = np.zeros((height + 1) * width, dtype=np.uint8)
    np.bitwise_xor.at(turns, row * width + column, np.uint8(1))
    return np.bitwise_xor.accumulate(turns.reshape(height + 1, width)[:-1], axis=0).view(bool)


def _sides(region: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sides of a region as lines: unit normals `[K, 2]` that point inwards, and offsets `[K]`."""
    x, y = (np.concatenate((region[1:], region[:1])) - region).T
    length = np.sqrt(x * x + y * y)
    apart = length > 0
    normals = np.array([-y[apart], x[apart]]).T / length[apart, None]
    offsets = -(normals * region[apart]).sum(axis=1)
    inwards = (normals @ region.mean(axis=0) + offsets).sum() > 0
    return (normals, offsets) if inwards else (-normals, -offsets)


def _cut(edges: np.ndarray, normal: np.ndarray, offset: float) -> np.ndarray:
    """Keep what of a closed outline lies where `normal @ point + offset >= 0`."""
    start, end = edges[:, :2], edges[:, 2:]
    # What lies on the line itself is outside: what is needed of it comes back when the outline is closed.
    before, after = start @ normal + offset - _ON_THE_LINE, end @ normal + offset - _ON_THE_LINE
    kept = (before >= 0) & (after >= 0)
    crosses = (before >= 0) != (after >= 0)
    if not crosses.any():
        return edges[kept]
    start, end, before, after = start[crosses], end[crosses], before[crosses], after[crosses]
    border = start + (before / (before - after))[:, None] * (end - start)
    parts = np.where((before >= 0)[:, None], np.concatenate((start, border), 1), np.concatenate((border, end), 1))
    # Along the line the outline covers what lies between its first and second crossing, its third and fourth, ...
    order = np.argsort(border @ np.array([-normal[1], normal[0]]))
    return np.concatenate((edges[kept], parts, border[order].reshape(-1, 4)))
