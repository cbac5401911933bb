"""Boxes, masks and pictures held against each other over a whole split: exporters disagree on what numbers mean.

COCO's boxes are x, y, width, height in pixels, its polygons x, y, x, y, ... in pixels, its run lengths go down the
columns. Where most objects contradict that, the other forms that exporters write are tried; one that fits nearly all
is what the file means, and a file that fits none is refused.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from det_coco._describe import counted, some
from det_coco._extents import agree, by_columns, inside, mask_extents, overlaps, owners
from det_coco.errors import DataError
from det_coco.polygons import Polygons
from det_coco.remarks import Remark

if TYPE_CHECKING:
    from det_coco.annotations import CocoIndex

BoxForm = Callable[[np.ndarray], np.ndarray]
"""From four numbers `[N, 4]` to x1, y1, x2, y2."""

_USUAL = "x, y, width, height"
_BOXES: dict[str, BoxForm] = {
    _USUAL: lambda b: np.concatenate((b[:, :2], b[:, :2] + b[:, 2:]), axis=1),
    "x1, y1, x2, y2": lambda b: b,
    "centre x, centre y, width, height": lambda b: np.concatenate(
        (b[:, :2] - b[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2), axis=1
    ),
    "y1, x1, y2, x2": lambda b: b[:, [1, 0, 3, 2]],
    "y, x, height, width": lambda b: np.concatenate((b[:, 1::-1], b[:, 1::-1] + b[:, :1:-1]), axis=1),
}
_TOLD_BY_BOUNDS = ("x, y, width, height", "x1, y1, x2, y2", "centre x, centre y, width, height")
_SCALES = {"in pixels": 0.0, "as fractions of the picture": 1.0, "in per cent of the picture": 100.0}
"""The number that stands for the whole picture; 0: pixels."""
WANTED = "Write boxes as x, y, width, height and polygons as x, y, x, y, ..., all in pixels."
"""What to do about another form."""
_ENOUGH = 0.5
"""Share of the objects that must contradict COCO's form before another one is looked for."""
_NEARLY_ALL = 0.95
"""Share of the objects that another form must fit."""
_SAMPLE = 4096
"""Objects on which a form is tried first."""
_MANY = 20
"""Objects from which the bounds of the pictures alone, without masks, say something about a form."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the numbers of a split are taken for.

    Attributes:
        boxes: float64 `[N, 4]` x1, y1, x2, y2 in pixels.
        masks: in pixels and COCO's order.
        words: how that differs from COCO's form.
    """

    boxes: np.ndarray
    masks: Polygons
    words: str


def reading_of(index: "CocoIndex") -> Reading | Remark | None:
    """Decide what the boxes and masks of a split mean.

    Args:
        index: as if all were in COCO's form; its `file_boxes` are what the file says.

    Returns:
        None where it is COCO's form, a remark where a few masks lie beside their boxes, and else another reading.

    Raises:
        DataError: the form is none that is known, or one of several.
    """
    sizes = _sizes(index)
    boxes = _BOXES[_USUAL](index.file_boxes)
    extents = mask_extents(index.masks, sizes)
    masked = np.isfinite(extents[:, 0])
    small = _share_of_picture(index, sizes)
    if masked.any():
        # Boxes that reach outside are clipped, and told.
        beside = np.flatnonzero(masked & (overlaps(boxes, extents) == 0) & inside(boxes, sizes))
        if small is None and agree(boxes, extents)[masked].mean() > 1 - _ENOUGH:
            return _beside(index, beside, int(masked.sum())) if beside.size else None
        return _by_masks(index, sizes, masked, small) or _unknown(index, beside, int(masked.sum()))
    return _by_bounds(index, sizes, small)


def _sizes(index: "CocoIndex") -> np.ndarray:
    """Width, height, width, height of each object's image: float64 `[N, 4]`."""
    size = np.stack((index.widths, index.heights, index.widths, index.heights), axis=1).astype(np.float64)
    return np.repeat(size, np.diff(index.image_instances), axis=0)


def _share_of_picture(index: "CocoIndex", sizes: np.ndarray) -> str | None:
    """Tell boxes that cannot be in pixels: the name of their scale, or None.

    No object of a split is larger than the first pixel of its image: fractions. All of many objects lie within the
    first 100 pixels of larger images, and some reach exactly there: per cent.
    """
    far = index.file_boxes
    if np.abs(far).max() <= 1 and sizes.min() > 2:
        return "as fractions of the picture"
    ends = np.maximum(far[:, :2] + far[:, 2:], far[:, 2:])
    within = far.max() <= 100.5 and sizes.min() > 150 and far.min() >= -0.5
    if within and len(far) >= _MANY and (np.abs(np.minimum(ends, 100).max(axis=0) - 100) <= 1).all():
        spread = np.unique(np.repeat(np.arange(len(index)), np.diff(index.image_instances))).size
        return "in per cent of the picture" if spread >= _MANY // 4 else None
    return None


def _by_masks(index: "CocoIndex", sizes: np.ndarray, masked: np.ndarray, small: str | None) -> Reading | None:
    """Find the form in which boxes and masks are about the same pixels, the one that changes least.

    Raises:
        DataError: several do that, and differ.
    """
    rows = np.flatnonzero(masked)
    if len(rows) > _SAMPLE:
        rows = rows[np.linspace(0, len(rows) - 1, _SAMPLE).astype(np.int64)]
        part = replace(index, file_boxes=index.file_boxes[rows], masks=index.masks[rows])
        shares = (_share(reading, sizes[rows]) for step in _steps(part, sizes[rows], small) for reading in step)
        if max(shares, default=0.0) < _NEARLY_ALL - 0.05:
            return None
    for step in _steps(index, sizes, small):
        fitting = [reading for reading in step if _share(reading, sizes, masked) >= _NEARLY_ALL]
        if fitting:
            return _only(index, fitting)
    return None


def _steps(index: "CocoIndex", sizes: np.ndarray, small: str | None) -> tuple[Iterator[Reading], ...]:
    """Other forms, those that change less first."""
    if small:
        scales = {small: _SCALES[small]}
        return _other_boxes(index, sizes, scales), _both_scaled(index, sizes, scales)
    return _other_boxes(index, sizes, _SCALES), _other_masks(index, sizes)


def _share(reading: Reading, sizes: np.ndarray, masked: slice | np.ndarray = slice(None)) -> float:
    """Share of the objects with masks whose box is around their mask and inside their picture."""
    extents = mask_extents(reading.masks, sizes)
    return float((agree(reading.boxes, extents) & inside(reading.boxes, sizes))[masked].mean())


def _other_boxes(index: "CocoIndex", sizes: np.ndarray, scales: Mapping[str, float]) -> Iterator[Reading]:
    for (form, corners), (scale, whole) in product(_BOXES.items(), scales.items()):
        factor = sizes / whole if whole else 1.0
        if whole or form != _USUAL:
            yield Reading(
                boxes=corners(index.file_boxes) * factor, masks=index.masks, words=f"boxes are {form} {scale}"
            )


def _other_masks(index: "CocoIndex", sizes: np.ndarray) -> Iterator[Reading]:
    masks, boxes = index.masks, _BOXES[_USUAL](index.file_boxes)
    if masks.points.size:
        owner = owners(masks)
        for words, points in (
            ("polygons are y, x, y, x, ...", masks.points[:, ::-1]),
            ("polygons are relative to the corner of their box", masks.points + boxes[owner, :2]),
            ("polygons are fractions of the picture", masks.points * sizes[owner, :2]),
            ("polygons are in per cent of the picture", masks.points * sizes[owner, :2] / 100),
        ):
            yield Reading(boxes=boxes, masks=masks.with_points(points), words=words)
    if masks.runs.size:
        words = "run lengths go along the rows, not down the columns"
        yield Reading(boxes=boxes, masks=by_columns(masks, sizes), words=words)


def _both_scaled(index: "CocoIndex", sizes: np.ndarray, scales: Mapping[str, float]) -> Iterator[Reading]:
    owner = owners(index.masks)
    for (form, corners), (scale, whole) in product(_BOXES.items(), scales.items()):
        if whole and index.masks.points.size:
            points = index.masks.points * sizes[owner, :2] / whole
            words = f"boxes are {form}, and they and the polygons are {scale}"
            yield Reading(
                boxes=corners(index.file_boxes) * sizes / whole, masks=index.masks.with_points(points), words=words
            )


def _by_bounds(index: "CocoIndex", sizes: np.ndarray, small: str | None) -> Reading | None:
    """Find the form in which boxes without masks lie inside their pictures, where the usual one does not.

    Raises:
        DataError: the boxes are no pixels, and which of several forms they have cannot be told.
    """
    whole = _SCALES[small or "in pixels"]
    factor = sizes / whole if whole else np.ones_like(sizes)
    forms = {form: _BOXES[form](index.file_boxes) * factor for form in _TOLD_BY_BOUNDS}
    good = {form: inside(boxes, sizes) for form, boxes in forms.items()}
    outside = ~good[_USUAL]
    if small is None:
        # A few objects at the border of a sloppy file prove nothing.
        if len(outside) < _MANY or outside.sum() < 3 or outside.mean() < 0.05:
            return None
        del forms[_USUAL]
    possible = [
        Reading(boxes=boxes, masks=index.masks, words=f"boxes are {form} {small or 'in pixels'}")
        for form, boxes in forms.items()
        if good[form].mean() >= (1.0 if len(outside) < _MANY else 0.995)
    ]
    if small is None and len(possible) != 1:
        return None
    if not possible:
        raise DataError(f"{index.annotation_file}: boxes are {small}, but in no form that is known. {WANTED}")
    return _only(index, possible)


def _only(index: "CocoIndex", readings: list[Reading]) -> Reading:
    """The one reading, of several that come to the same.

    Raises:
        DataError: they do not.
    """
    first = readings[0]
    for other in readings[1:]:
        if np.abs(other.boxes - first.boxes).max() > 1 or not np.allclose(
            other.masks.points, first.masks.points, atol=1
        ):
            forms = ", or ".join(reading.words for reading in readings)
            raise DataError(f"{index.annotation_file}: it cannot be told whether {forms}. {WANTED}")
    return first


def _beside(index: "CocoIndex", beside: np.ndarray, masked: int) -> Remark:
    ids = index.annotation_ids[beside]
    message = (
        f"the masks of {len(ids)} of {counted(masked, 'object')} lie beside their boxes (annotations {some(ids)}). "
        "Boxes and masks are learnt and evaluated apart; correct those that are wrong."
    )
    return Remark("mask_beside_box", message, tuple(ids.tolist()))


def _unknown(index: "CocoIndex", beside: np.ndarray, masked: int) -> Remark | None:
    """Say that boxes and masks disagree.

    Raises:
        DataError: nearly all masks are elsewhere than their boxes.
    """
    if len(beside) >= _NEARLY_ALL * masked:
        raise DataError(
            f"{index.annotation_file}: the masks of {len(beside)} of {counted(masked, 'object')} lie beside their "
            f"boxes (annotations {some(index.annotation_ids[beside])}), in no form that is known. {WANTED}"
        )
    return _beside(index, beside, masked) if beside.size else None
