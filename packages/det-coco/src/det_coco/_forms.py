"""Boxes, masks and pictures held against each other over a whole split: exporters disagree on what numbers mean.

COCO's boxes are x, y, width, height in pixels, its polygons x, y, x, y, ... in pixels, its run lengths go down the
columns. Where most objects contradict that, the other forms that exporters write are tried; one that fits nearly all
is what the file means, and a file that fits none is refused.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from det_coco._box_forms import FORMS, MANY, PIXELS, SCALES, USUAL, WANTED, possible_forms, scale_of
from det_coco._describe import counted, named
from det_coco._extents import agree, by_columns, inside, mask_extents, overlaps, owners, run_extents
from det_coco.errors import DataError
from det_coco.polygons import Polygons
from det_coco.remarks import Remark

if TYPE_CHECKING:
    from det_coco.annotations import CocoIndex

_ENOUGH = 0.5
"""Share of the objects that must contradict COCO's form before another one is looked for."""
_NEARLY_ALL = 0.95
"""Share of the objects that another form must fit."""
_SAMPLE = 4096
"""Objects on which a form is tried first."""
_LARGEST_DECODED = 1 << 28
"""Pixels of the largest picture whose masks are decoded to find their form."""


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
        None where it is COCO's form, a remark where it hardly can be, or a few masks lie beside their boxes, and else
        another reading.

    Raises:
        DataError: the form is none that is known, or one of several.
    """
    sizes = _sizes(index)
    boxes = FORMS[USUAL](index.file_boxes)
    extents = mask_extents(index.masks, sizes)
    masked = np.isfinite(extents[:, 0])
    images = np.repeat(np.arange(len(index)), np.diff(index.image_instances))
    scale, certain = scale_of(index.file_boxes, sizes, images)
    small = scale if certain and scale != PIXELS else None
    if masked.any():
        # Boxes that reach outside are clipped, and told.
        beside = np.flatnonzero(masked & (overlaps(boxes, extents) == 0) & inside(boxes, sizes))
        if small is None and agree(boxes, extents)[masked].mean() > 1 - _ENOUGH:
            return _beside(index, beside, int(masked.sum())) if beside.size else None
        return _by_masks(index, sizes, masked, small) or _unknown(index, beside, int(masked.sum()))
    return _by_bounds(index, sizes, scale) if certain else _doubt(index, sizes, scale)


def _sizes(index: "CocoIndex") -> np.ndarray:
    """Width, height, width, height of each object's image: float64 `[N, 4]`."""
    size = np.stack((index.widths, index.heights, index.widths, index.heights), axis=1).astype(np.float64)
    return np.repeat(size, np.diff(index.image_instances), axis=0)


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
        scales = {small: SCALES[small]}
        return _other_boxes(index, sizes, scales), _both_scaled(index, sizes, scales)
    return _other_boxes(index, sizes, SCALES), _other_masks(index, sizes)


def _share(reading: Reading, sizes: np.ndarray, masked: slice | np.ndarray = slice(None)) -> float:
    """Share of the objects with masks whose box is around their mask and inside their picture."""
    extents = mask_extents(reading.masks, sizes)
    return float((agree(reading.boxes, extents) & inside(reading.boxes, sizes))[masked].mean())


def _other_boxes(index: "CocoIndex", sizes: np.ndarray, scales: Mapping[str, float]) -> Iterator[Reading]:
    for (form, corners), (scale, whole) in product(FORMS.items(), scales.items()):
        factor = sizes / whole if whole else 1.0
        if whole or form != USUAL:
            yield Reading(
                boxes=corners(index.file_boxes) * factor, masks=index.masks, words=f"boxes are {form} {scale}"
            )


def _other_masks(index: "CocoIndex", sizes: np.ndarray) -> Iterator[Reading]:
    masks, boxes = index.masks, FORMS[USUAL](index.file_boxes)
    if masks.points.size:
        owner = owners(masks)
        for words, points in (
            ("polygons are y, x, y, x, ...", masks.points[:, ::-1]),
            ("polygons are relative to the corner of their box", masks.points + boxes[owner, :2]),
            ("polygons are fractions of the picture", masks.points * sizes[owner, :2]),
            ("polygons are in per cent of the picture", masks.points * sizes[owner, :2] / 100),
        ):
            yield Reading(boxes=boxes, masks=masks.with_points(points), words=words)
    if masks.runs.size and sizes[:, :2].prod(axis=1).max() <= _LARGEST_DECODED:
        along = run_extents(masks, sizes[:, 1], sizes[:, 0], by_rows=True)
        coded = np.isfinite(along[:, 0])
        # To decode masks takes far more than to measure them.
        if agree(boxes, along)[coded].mean() >= _NEARLY_ALL - 0.05:
            words = "run lengths go along the rows, not down the columns"
            yield Reading(boxes=boxes, masks=by_columns(masks, sizes), words=words)


def _both_scaled(index: "CocoIndex", sizes: np.ndarray, scales: Mapping[str, float]) -> Iterator[Reading]:
    owner = owners(index.masks)
    for (form, corners), (scale, whole) in product(FORMS.items(), scales.items()):
        if whole and index.masks.points.size:
            points = index.masks.points * sizes[owner, :2] / whole
            words = f"boxes are {form}, and they and the polygons are {scale}"
            yield Reading(
                boxes=corners(index.file_boxes) * sizes / whole, masks=index.masks.with_points(points), words=words
            )


def _by_bounds(index: "CocoIndex", sizes: np.ndarray, scale: str) -> Reading | Remark | None:
    """Find the form in which boxes without masks lie inside their pictures, where the usual one does not.

    Raises:
        DataError: the boxes are no pixels, and which of several forms they have cannot be told.
    """
    forms = possible_forms(index.file_boxes, sizes, scale)
    if scale != PIXELS:
        if not forms:
            raise DataError(f"{index.annotation_file}: boxes are {scale}, but in no form that is known. {WANTED}")
        return _only(index, [_without_masks(index, form, scale, corners) for form, corners in forms.items()])
    outside = ~inside(FORMS[USUAL](index.file_boxes), sizes)
    forms.pop(USUAL, None)
    if not forms or outside.mean() < 0.05:
        return None
    if len(forms) == 1 and len(outside) >= MANY and outside.sum() >= 3:
        ((form, corners),) = forms.items()
        return _without_masks(index, form, scale, corners)
    if outside.mean() < 0.1:
        return None
    reach = f"{counted(int(outside.sum()), 'box')} of {len(outside)} {'reaches' if outside.sum() == 1 else 'reach'}"
    return _doubtful(index, f"{reach} outside the picture, but all lie inside if they are {' or '.join(forms)}")


def _without_masks(index: "CocoIndex", form: str, scale: str, corners: np.ndarray) -> Reading:
    return Reading(boxes=corners, masks=index.masks, words=f"boxes are {form} {scale}")


def _doubt(index: "CocoIndex", sizes: np.ndarray, scale: str) -> Remark | None:
    """Say that boxes are hardly in pixels, where they have a form in another scale."""
    width, height = sizes[sizes[:, :2].prod(axis=1).argmax(), :2].astype(int)
    if not possible_forms(index.file_boxes, sizes, scale):
        return None
    what = f"all {counted(len(sizes), 'box')} lie within the first 100 pixels of pictures of up to {width} x {height}"
    return _doubtful(index, f"{what}, as boxes {scale} would")


def _doubtful(index: "CocoIndex", what: str) -> Remark:
    message = f"{what}. They were read as {USUAL} {PIXELS}; if they are something else, rewrite them."
    return Remark("form_doubtful", message, tuple(index.annotation_ids.tolist()))


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
        f"{_masks_beside(len(ids), masked)} ({named('annotation', ids)}). "
        "Boxes and masks are learnt and evaluated apart; correct those that are wrong."
    )
    return Remark("mask_beside_box", message, tuple(ids.tolist()))


def _masks_beside(count: int, masked: int) -> str:
    lie = "lies beside its box" if count == 1 else "lie beside their boxes"
    return f"{counted(count, 'mask')} of {counted(masked, 'object')} {lie}"


def _unknown(index: "CocoIndex", beside: np.ndarray, masked: int) -> Remark | None:
    """Say that boxes and masks disagree.

    Raises:
        DataError: nearly all masks are elsewhere than their boxes.
    """
    if len(beside) >= _NEARLY_ALL * masked:
        raise DataError(
            f"{index.annotation_file}: {_masks_beside(len(beside), masked)} "
            f"({named('annotation', index.annotation_ids[beside])}), in no form that is known. {WANTED}"
        )
    return _beside(index, beside, masked) if beside.size else None
