"""Masks as outlines: polygons traced around bitmaps, and several polygons joined to one."""

from collections.abc import Sequence

import numpy as np

from det_coco._polygon_geometry import polygon_area


def trace_outlines(bitmap: np.ndarray) -> list[np.ndarray]:
    """Trace the edges of the pixels of a mask.

    Rasterised together by the even-odd rule, the outlines give the same mask again, in COCO's way as well.

    Args:
        bitmap: `[h, w]` of any dtype, zero outside and non-zero inside.

    Returns:
        closed outlines of parts and holes, each float64 `[P, 2]` x, y: corners of pixels, only where it turns.
    """
    padded = np.pad(np.asarray(bitmap).astype(np.int8), 1)
    squares = padded[:-1, :-1] + padded[:-1, 1:] + padded[1:, :-1] + padded[1:, 1:]
    diagonal = (squares == 2) & (padded[:-1, :-1] == padded[1:, 1:])
    y, x = np.nonzero((squares % 2 == 1) | diagonal)
    # Where two pixels touch at a corner, two outlines turn there.
    corners = np.repeat(np.stack((x, y), axis=1), np.where(diagonal[y, x], 2, 1), axis=0)
    partners = [_neighbours(corners[:, 1], corners[:, 0]), _neighbours(corners[:, 0], corners[:, 1])]
    outlines, free = [], np.ones(len(corners), dtype=bool)
    for first in range(len(corners)):
        here, rows = first, []
        while free[here]:
            free[here] = False
            rows.append(here)
            here = int(partners[len(rows) % 2][here])
        if rows:
            outlines.append(corners[rows].astype(np.float64))
    return outlines


def join_outlines(outlines: Sequence[np.ndarray]) -> np.ndarray:
    """Join outlines to one, by bridges of no width that lead from one to the next and back the same way.

    By the even-odd rule the joined outline covers what the outlines cover together, holes included.

    Args:
        outlines: one or more, each `[P, 2]` x, y.

    Returns:
        `[Q, 2]` x, y of the joined outline.
    """
    joined, *rest = outlines
    for part in rest:
        # Short bridges, because some programs draw the edge of a polygon as well.
        there = _nearest(part, joined[_nearest(joined, part.mean(axis=0))])
        here = _nearest(joined, part[there])
        joined = np.concatenate((joined[: here + 1], part[there:], part[: there + 1], joined[here:]))
    return joined


def trace_parts(bitmap: np.ndarray) -> list[np.ndarray]:
    """Trace the parts of a mask, the holes of each joined to its outline.

    Parts lie apart or touch at corners, so that they rasterise to the same mask one by one as well as together.

    Args:
        bitmap: `[h, w]` of any dtype, zero outside and non-zero inside.

    Returns:
        closed outlines, one of each part, the largest first, each float64 `[P, 2]` x, y.
    """
    outlines = sorted(trace_outlines(bitmap), key=polygon_area, reverse=True)
    firsts = [outline[np.lexsort(outline.T)[0]] for outline in outlines]  # the topmost corner, of those the leftmost
    # The pixel right below that corner is within the outline: of the mask in a part, of the background in a hole.
    solid = [bool(bitmap[int(y), int(x)]) for x, y in firsts]
    parts = [[outline] for outline, is_part in zip(outlines, solid, strict=True) if is_part]
    for outline, first, is_part in zip(outlines, firsts, solid, strict=True):
        if not is_part:
            around = [part for part in parts if _covers(part[0], first + 0.5)]
            around[-1].append(outline)  # the smallest: a part may lie in the hole of another
    return [join_outlines(part) for part in parts]


def _covers(outline: np.ndarray, point: np.ndarray) -> bool:
    """Whether a point lies within an outline, by the even-odd rule; not for points on its edges."""
    (x1, y1), (x2, y2) = outline.T, np.roll(outline, -1, axis=0).T
    crosses = (y1 <= point[1]) != (y2 <= point[1])  # edges are upright or level, and level ones cross nothing
    return bool((crosses & (np.minimum(x1, x2) > point[0])).sum() % 2)


def _nearest(points: np.ndarray, to: np.ndarray) -> int:
    return int(((points - to) ** 2).sum(axis=1).argmin())


def _neighbours(lines: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Pair the corners along each line, the first with the second, the third with the fourth: the partner of each."""
    order = np.lexsort((places, lines))
    partners = np.empty_like(order)
    partners[order[0::2]], partners[order[1::2]] = order[1::2], order[0::2]
    return partners
