"""What the four numbers of boxes are: COCO's x, y, width, height in pixels, or a form that other tools write.

`N` boxes of one split. Which form they have shows in the sizes of their pictures, even where there are no masks.
"""

import math
from collections.abc import Callable

import numpy as np

from det_coco._extents import inside

BoxForm = Callable[[np.ndarray], np.ndarray]
"""From four numbers `[N, 4]` to x1, y1, x2, y2."""

WANTED = "Write boxes as x, y, width, height and polygons as x, y, x, y, ..., all in pixels."
"""What to do about another form."""
USUAL = "x, y, width, height"
FORMS: dict[str, BoxForm] = {
    USUAL: lambda b: np.concatenate((b[:, :2], b[:, :2] + b[:, 2:]), axis=1),
    "x1, y1, x2, y2": lambda b: b,
    "centre x, centre y, width, height": lambda b: np.concatenate(
        (b[:, :2] - b[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2), axis=1
    ),
    "y1, x1, y2, x2": lambda b: b[:, [1, 0, 3, 2]],
    "y, x, height, width": lambda b: np.concatenate((b[:, 1::-1], b[:, 1::-1] + b[:, :1:-1]), axis=1),
}
PIXELS, FRACTIONS, PER_CENT = "in pixels", "as fractions of the picture", "in per cent of the picture"
SCALES = {PIXELS: 0.0, FRACTIONS: 1.0, PER_CENT: 100.0}
"""The number that stands for the whole picture; 0: pixels."""
MANY = 20
"""Boxes from which the bounds of the pictures alone say something for certain."""
_TOLD_BY_BOUNDS = (USUAL, "x1, y1, x2, y2", "centre x, centre y, width, height")
_BY_ROWS = ("y1, x1, y2, x2", "y, x, height, width")
"""Rare forms, which in square pictures and in fractions fit where those above do."""
_UNLIKELY, _CERTAIN = 1e-3, 1e-5
"""Chances below which something is worth a word, and below which it is taken for granted."""
_WHOLE = 0.1
"""Pixels that a number which was rounded is off a whole one at most."""


def scale_of(boxes: np.ndarray, sizes: np.ndarray, images: np.ndarray) -> tuple[str, bool]:
    """Tell what the numbers of boxes are measured in.

    No box is larger than the first pixel of its picture: fractions. All lie within the first 100 pixels of larger
    pictures: per cent, for certain where many boxes use the whole range up to 100, or where odd numbers become whole
    pixels when they are taken for per cent.

    Args:
        boxes: float64 `[N, 4]` as in the file, finite.
        sizes: float64 `[N, 4]` width, height, width, height of their pictures in pixels.
        images: `[N]` what tells the pictures apart.

    Returns:
        one of `SCALES`, and whether that is certain.
    """
    if not len(boxes):
        return PIXELS, True
    if np.abs(boxes).max() <= 1 and sizes.min() > 2 and boxes.any():
        return FRACTIONS, True
    if boxes.max() > 100.5 or boxes.min() < -0.5 or sizes.max() <= 110:
        return PIXELS, True
    ends = np.maximum(boxes[:, :2] + boxes[:, 2:], boxes[:, 2:])
    _, first = np.unique(images, return_index=True)
    if _uses_all(ends, sizes, len(first)) or _become_whole(boxes, boxes * sizes / 100):
        return PER_CENT, True
    # If what is drawn may lie anywhere: the chance that it is there in every picture.
    chance = np.log(100.5 / np.maximum(sizes[first, :2], 100.5)).sum()
    doubtful = chance < math.log(_UNLIKELY) and ends.max() > 50
    return (PER_CENT, False) if doubtful else (PIXELS, True)


def possible_forms(boxes: np.ndarray, sizes: np.ndarray, scale: str) -> dict[str, np.ndarray]:
    """Find the forms in which boxes lie inside their pictures: all of few boxes, nearly all of many.

    Args:
        boxes: float64 `[N, 4]` as in the file.
        sizes: float64 `[N, 4]` width, height, width, height of their pictures in pixels.
        scale: one of `SCALES`.

    Returns:
        x1, y1, x2, y2 in pixels `[N, 4]`, by form. Of forms in fractions or per cent only those that make whole pixels,
        where some do.
    """
    whole = SCALES[scale]
    factor = sizes / whole if whole else np.ones_like(sizes)
    wanted = 0.995 if len(boxes) >= MANY else 1.0
    found: dict[str, np.ndarray] = {}
    for forms in (_TOLD_BY_BOUNDS,) if whole else (_TOLD_BY_BOUNDS, _BY_ROWS):
        read = {form: FORMS[form](boxes) * factor for form in forms}
        found = found or {form: corners for form, corners in read.items() if inside(corners, sizes).mean() >= wanted}
    drawn = {form: corners for form, corners in found.items() if whole and _off_pixels(corners).max() <= _WHOLE}
    return drawn or found


def other_form(boxes: np.ndarray, sizes: np.ndarray, images: np.ndarray) -> str | None:
    """Name the form of boxes that are not x, y, width, height in pixels.

    Args:
        boxes: float64 `[N, 4]` as in the file, finite.
        sizes: float64 `[N, 4]` width, height, width, height of their pictures in pixels.
        images: `[N]` what tells the pictures apart.

    Returns:
        one form and scale, or several joined by "or"; None where they can be what they should be, or nothing fits.
    """
    scale, certain = scale_of(boxes, sizes, images)
    if not certain:
        return None
    if scale == PIXELS and (len(boxes) < MANY or inside(FORMS[USUAL](boxes), sizes).mean() > 0.5):
        return None
    forms = possible_forms(boxes, sizes, scale)
    return f"{' or '.join(forms)} {scale}" if forms else None


def _uses_all(ends: np.ndarray, sizes: np.ndarray, pictures: int) -> bool:
    """Whether many boxes `[N, 2]` reach exactly to 100 in both directions, in several pictures that go on there."""
    exact = (np.abs(np.minimum(ends, 100).max(axis=0) - 100) <= 1).all()
    return bool(len(ends) >= MANY and pictures >= MANY // 4 and sizes.min() > 150 and exact)


def _become_whole(boxes: np.ndarray, scaled: np.ndarray) -> bool:
    """Whether all odd numbers become whole pixels by a scale, or halves as centres have them, which is no chance."""
    # Pictures that were scaled have boxes with simple fractions, which the scale of a round size makes whole too.
    simple = [np.abs(part * boxes - np.rint(part * boxes)) <= 0.03 for part in (3, 4, 10)]
    odd = scaled[~np.any(simple, axis=0)]
    if not odd.size:
        return False
    off = min(float(_off_pixels(part * odd).max()) for part in (1, 2))
    return off <= _WHOLE and odd.size * math.log(2 * max(off, 1e-6)) < math.log(_CERTAIN)


def _off_pixels(numbers: np.ndarray) -> np.ndarray:
    return np.abs(numbers - np.rint(numbers))
