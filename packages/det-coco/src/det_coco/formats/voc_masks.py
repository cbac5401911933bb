"""Masks of Pascal VOC: a PNG file in which each pixel has the number of its object."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from det_coco._coco_api import coco_mask
from det_coco.errors import DataError
from det_coco.formats.content import mask_code

_BORDER = 255
# Least overlap of boxes that are of one object.
_AGREES = 0.5


def object_masks(file: Path, size: tuple[int, int], boxes: Sequence[Sequence[float]]) -> list[dict[str, Any] | None]:
    """Read the masks of the objects of a picture.

    Object k of the XML file has the number k; where numbers and boxes do not agree, as some tools number masks alone,
    a mask goes to the object whose box it fills. The border between objects, number 255, belongs to none.

    Args:
        file: in `SegmentationObject`; it may be missing.
        size: (height, width) of the picture in pixels.
        boxes: x, y, width, height of the objects of the picture, in the order of its XML file.

    Returns:
        for each a run-length code, None where it has no mask.

    Raises:
        DataError: the file is no picture, or has another size.
    """
    masks: list[dict[str, Any] | None] = [None] * len(boxes)
    if not boxes or not file.is_file():
        return masks
    numbers = _read_numbers(file, size)
    found = [int(k) for k in np.unique(numbers) if k not in (0, _BORDER)]
    codes = {k: mask_code(numbers == k) for k in found}
    overlaps = coco_mask.iou(
        np.array([coco_mask.toBbox(codes[k]) for k in found]).reshape(-1, 4),
        np.array(boxes, dtype=np.float64),
        np.zeros(len(boxes), dtype=np.uint8),
    )  # [masks, boxes]
    if found == list(range(1, len(boxes) + 1)) and np.diagonal(overlaps).mean() >= _AGREES:
        return [codes[k] for k in found]
    pairs = [divmod(pair, len(boxes)) for pair in np.argsort(-np.ravel(overlaps), kind="stable").tolist()]
    for mask, box in pairs:
        if overlaps[mask][box] >= _AGREES and masks[box] is None and found[mask] in codes:
            masks[box] = codes.pop(found[mask])
    return masks


def _read_numbers(file: Path, size: tuple[int, int]) -> np.ndarray:
    try:
        with Image.open(file) as image:
            numbers = np.asarray(image if image.mode in ("P", "L") else image.convert("RGB"))
    except Exception as error:  # Pillow raises anything for broken files
        raise DataError(f"The mask {file} cannot be read: {error}.") from None
    if numbers.ndim == 3:
        numbers = _numbers_of_colours(numbers)
    if numbers.shape != tuple(size):
        height, width = numbers.shape
        raise DataError(f"The mask {file} is {width} x {height} pixels, but its picture is {size[1]} x {size[0]}.")
    return numbers


def _numbers_of_colours(colours: np.ndarray) -> np.ndarray:
    """Undo VOC's colour map: uint8 `[h, w]` from uint8 `[h, w, 3]`.

    Bit 3 k + c of a number is bit 7 - k of channel c (VOC devkit, `VOClabelcolormap.m`).
    """
    numbers = np.zeros(colours.shape[:2], dtype=np.uint8)
    for k in range(3):
        for channel in range(3):
            if 3 * k + channel < 8:
                numbers |= ((colours[..., channel] >> (7 - k)) & 1) << (3 * k + channel)
    return numbers
