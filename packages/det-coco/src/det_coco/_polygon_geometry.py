"""Geometry of polygons."""

import numpy as np


def clip_polygon(points: np.ndarray, low: tuple[float, float], high: tuple[float, float]) -> np.ndarray:
    """Clip a polygon to a rectangle (Sutherland and Hodgman, "Reentrant polygon clipping", 1974).

    Args:
        points: float64 `[P, 2]` x, y.
        low: x, y of the rectangle's upper left corner.
        high: x, y of its lower right corner.

    Returns:
        float64 `[R, 2]`: the part inside, parts that fall apart joined by lines along the rectangle's sides; no point
        where nothing is inside.
    """
    if len(points) > 2 and (points >= low).all() and (points <= high).all():
        return points
    for axis in (0, 1):
        for sign, bound in ((1, low[axis]), (-1, -high[axis])):
            depth = sign * points[:, axis] - bound  # [P] negative outside
            following = np.roll(points, -1, axis=0)
            after = np.roll(depth, -1)
            crosses = (depth < 0) != (after < 0)
            with np.errstate(divide="ignore", invalid="ignore"):
                at = (depth / (depth - after))[:, None]
                cut = points + at * (following - points)
            cut[:, axis] = sign * bound
            both = np.stack((points, cut), axis=1)  # [P, 2, 2] each point, and where the line from it leaves or enters
            points = both[np.stack((depth >= 0, crosses), axis=1)]
            if len(points) < 3:
                return np.zeros((0, 2))
    return points


def outline_length(points: np.ndarray) -> float:
    """Count the pixels along the outline of a polygon `[P, 2]`."""
    return float(np.abs(np.roll(points, -1, axis=0) - points).max(axis=1).sum())


def polygon_area(points: np.ndarray) -> float:
    """Compute the area of a polygon `[P, 2]`, whichever way round it goes."""
    x, y = (points - points[0]).T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)
