"""What masks are, in whatever form and however broken: extents, areas, faults."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import chain
from typing import Any

import numpy as np

from det_coco._coco_api import coco_mask
from det_coco.doctor.values import MOST
from det_coco.rle import decode_counts

_FAR = 3.0
"""Pixels between box and mask from which a run-length code is tried by rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskFacts:
    """The masks of `M` annotations.

    Attributes:
        faults: M clauses that say why a mask cannot be read, with the kind of finding before a colon; or nothing.
        present: bool `[M]` whether there is a mask that can be read.
        boxes: float64 `[M, 4]` x1, y1, x2, y2 around the mask, polygons not cut at the border; NaN without a mask.
        areas: float64 `[M]` pixels; NaN without a mask.
        flat: int64 `[M]` polygons without area, or of fewer than three points.
        crossing: bool `[M]` whether a polygon crosses itself so that it matters.
        is_box: bool `[M]` whether the mask is the rectangle around it.
        by_rows: bool `[M]` whether a run-length code fits the box only when it is read by rows.
        kept: M values with what is left of `segmentation` without the flat polygons, None where nothing has to go.
    """

    faults: list[str]
    present: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    flat: np.ndarray
    crossing: np.ndarray
    is_box: np.ndarray
    by_rows: np.ndarray
    kept: list[Any]


def measure_masks(
    segmentations: Sequence[Any], size: tuple[int, int], boxes: np.ndarray, *, said: tuple[int, int]
) -> MaskFacts:
    """Measure the masks of one picture.

    Args:
        segmentations: M values as in the file, None where there is none.
        size: (height, width) in pixels of the picture; zeros where it is unknown.
        boxes: float64 `[M, 4]` x, y, width, height as in the file, or NaN.
        said: (height, width) that the file says, which run-length codes may have too.
    """
    count = len(segmentations)
    facts = MaskFacts(
        faults=[""] * count,
        present=np.zeros(count, dtype=bool),
        boxes=np.full((count, 4), np.nan),
        areas=np.full(count, np.nan),
        flat=np.zeros(count, dtype=np.int64),
        crossing=np.zeros(count, dtype=bool),
        is_box=np.zeros(count, dtype=bool),
        by_rows=np.zeros(count, dtype=bool),
        kept=[None] * count,
    )
    for n, segmentation in enumerate(segmentations):
        if segmentation is None or segmentation == []:
            continue
        if isinstance(segmentation, list):
            _polygons(facts, n, segmentation, size)
        elif isinstance(segmentation, dict):
            given = segmentation.get("size")
            _code(facts, n, segmentation, said if given == list(said) else size, boxes[n])
        else:
            facts.faults[n] = "broken_mask: it is neither a list of polygons nor a run-length code"
    return facts


def gather(groups: Sequence[np.ndarray], parts: Sequence[MaskFacts]) -> MaskFacts:
    """Join the masks of the pictures of a split.

    Args:
        groups: the annotations of each picture, int64 `[M]`, together 0 .. N - 1.
        parts: their masks, in that order.

    Returns:
        the masks of the N annotations.
    """
    if not parts:
        return measure_masks([], (0, 0), np.zeros((0, 4)), said=(0, 0))
    order = np.argsort(np.concatenate(groups))
    joined: dict[str, Any] = {}
    for item in fields(MaskFacts):
        columns = [getattr(part, item.name) for part in parts]
        if isinstance(columns[0], np.ndarray):
            joined[item.name] = np.concatenate(columns)[order]
        else:
            together = list(chain.from_iterable(columns))
            joined[item.name] = [together[k] for k in order.tolist()]
    return MaskFacts(**joined)


def polygons_of(segmentation: list[Any]) -> list[np.ndarray] | str:
    """Read polygons.

    Args:
        segmentation: a list of polygons, each a flat list x, y, x, y, ... or a list of pairs; or of pairs alone.

    Returns:
        float64 `[P, 2]` each; or what is wrong, as a clause.
    """
    if not all(isinstance(polygon, list) for polygon in segmentation):
        return "it is a list with something that is not a polygon"
    if len(segmentation) >= 3 and all(len(polygon) == 2 for polygon in segmentation):
        segmentation = [segmentation]
    found = []
    for polygon in segmentation:
        try:
            points = np.array(polygon, dtype=object)
            if any(isinstance(v, str | bool | type(None)) for v in points.ravel()):
                return "a polygon holds something that is not a number"
            points = points.astype(np.float64)
        except (TypeError, ValueError):
            return "a polygon holds something that is not a number"
        if points.ndim > 2 or points.size % 2 or (points.ndim == 2 and points.shape[1] != 2):
            return f"a polygon has an odd number of coordinates ({points.size})"
        if not (np.abs(points) <= MOST).all():
            return "a polygon has NaN, infinite or huge coordinates"
        found.append(points.reshape(-1, 2))
    return found


def _polygons(facts: MaskFacts, n: int, segmentation: list[Any], size: tuple[int, int]) -> None:
    polygons = polygons_of(segmentation)
    if isinstance(polygons, str):
        facts.faults[n] = f"broken_mask: {polygons}"
        return
    solid = [_signed_area(polygon) != 0 or _bends(polygon) for polygon in polygons]
    facts.flat[n] = len(polygons) - sum(solid)
    if facts.flat[n]:
        facts.kept[n] = [p.ravel().tolist() for p, is_solid in zip(polygons, solid, strict=True) if is_solid]
    polygons = [polygon for polygon, is_solid in zip(polygons, solid, strict=True) if is_solid]
    if not polygons:
        return
    points = np.concatenate(polygons)
    facts.present[n] = True
    facts.boxes[n] = np.concatenate((points.min(axis=0), points.max(axis=0)))
    if not all(size):
        return
    codes = coco_mask.frPyObjects([polygon.ravel().tolist() for polygon in polygons], *size)
    facts.areas[n] = coco_mask.area(coco_mask.merge(codes))
    facts.crossing[n] = any(_crosses(p, float(coco_mask.area(c)), size) for p, c in zip(polygons, codes, strict=True))
    facts.is_box[n] = len(polygons) == 1 and _is_rectangle(polygons[0])


def _bends(polygon: np.ndarray) -> bool:
    """Whether points of a polygon without signed area, such as a figure of eight, lie on no line."""
    if len(polygon) < 3:
        return False
    return bool(np.linalg.matrix_rank(polygon - polygon[0], tol=1e-6) == 2)


def _signed_area(polygon: np.ndarray) -> float:
    if len(polygon) < 3:
        return 0.0
    x, y = (polygon - polygon[0]).T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def _crosses(polygon: np.ndarray, pixels: float, size: tuple[int, int]) -> bool:
    """Whether parts of a polygon are run around the other way, so that they count against the rest.

    A tenth of its pixels, and more than its rim: less is how a careful hand draws, and rasters err by the rim, and by a
    pixel or two where the polygon is smaller than one, as in fractions of the picture.
    """
    if (polygon < -1).any() or (polygon > [size[1] + 1, size[0] + 1]).any():
        return False  # its pixels are cut off
    rim = float(np.abs(np.roll(polygon, -1, axis=0) - polygon).max(axis=1).sum())
    return pixels - abs(_signed_area(polygon)) > 0.1 * pixels + rim / 2 + 2


def _is_rectangle(polygon: np.ndarray) -> bool:
    if len(polygon) == 5 and (polygon[0] == polygon[4]).all():
        polygon = polygon[:4]
    low, high = polygon.min(axis=0), polygon.max(axis=0)
    corners = {(low[0], low[1]), (high[0], low[1]), (high[0], high[1]), (low[0], high[1])}
    return len(polygon) == 4 and set(map(tuple, polygon.tolist())) == corners


def _code(facts: MaskFacts, n: int, code: dict[str, Any], size: tuple[int, int], box: np.ndarray) -> None:
    runs = runs_of(code)
    if isinstance(runs, str):
        facts.faults[n] = f"broken_mask: {runs}"
        return
    given = code.get("size")
    if all(size) and given != list(size):
        swapped = ", height and width swapped" if given == [size[1], size[0]] else ""
        facts.faults[n] = f"mask_size: its code is for {given} pixels (height, width), the image {list(size)}{swapped}"
        return
    if runs.sum() != size[0] * size[1]:
        facts.faults[n] = f"broken_mask: its code covers {runs.sum()} pixels, its image has {size[0] * size[1]}"
        return
    if not runs[1::2].any():
        facts.flat[n] = 1
        facts.kept[n] = []
        return
    facts.present[n] = True
    facts.areas[n] = runs[1::2].sum()
    facts.boxes[n] = _extent(runs, size[0])
    facts.is_box[n] = facts.areas[n] == np.prod(facts.boxes[n, 2:] - facts.boxes[n, :2])
    corners = np.concatenate((box[:2], box[:2] + box[2:]))
    if np.abs(facts.boxes[n] - corners).max() > _FAR:  # false where the box is NaN
        turned = _extent(runs, size[1])[[1, 0, 3, 2]]
        facts.by_rows[n] = np.abs(turned - corners).max() <= 1


def runs_of(code: dict[str, Any]) -> np.ndarray | str:
    """Read a run-length code: int64 `[R]` run lengths, or what is wrong, as a clause."""
    counts = code.get("counts")
    if not isinstance(code.get("size"), list) or counts is None:
        return "its code has no 'size' or no 'counts'"
    if isinstance(counts, str):
        try:
            runs = decode_counts(counts)
        except ValueError:
            return "its code is damaged"
    elif isinstance(counts, list) and all(type(c) in (int, float) and abs(c) < 1 << 40 and c == int(c) for c in counts):
        runs = np.array(counts, dtype=np.int64)
    else:
        return "the 'counts' of its code are neither a text nor a list of whole numbers"
    return "its code has a negative run" if runs.size and runs.min() < 0 else runs


def by_columns(code: dict[str, Any]) -> dict[str, Any]:
    """Turn a run-length code that goes by rows, and can be read, into one that goes by columns as COCO's do."""
    runs = np.asarray(runs_of(code), dtype=np.int64)
    flat = np.repeat(np.arange(len(runs)) % 2, runs).reshape(code["size"]).ravel(order="F")  # [h * w] of 0 and 1
    bounds = np.concatenate(([0], np.flatnonzero(np.diff(flat)) + 1, [len(flat)]))
    counts = np.diff(bounds).tolist()
    return {"size": code["size"], "counts": [0, *counts] if flat[0] else counts}


def _extent(runs: np.ndarray, height: int) -> np.ndarray:
    """The box around a mask that goes by columns of a height: float64 `[4]` x1, y1, x2, y2."""
    ends = np.cumsum(runs)
    first, last = ends[:-1:2][: len(runs) // 2], ends[1::2] - 1
    some = last >= first
    first, last = first[some], last[some]
    tall = first // height != last // height  # a run that goes on in the next column touches both borders
    top = 0 if tall.any() else (first % height).min()
    bottom = height if tall.any() else (last % height).max() + 1
    return np.array([(first // height).min(), top, (last // height).max() + 1, bottom], dtype=np.float64)
