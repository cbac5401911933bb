"""Masks of Pascal VOC: a PNG file in which each pixel has the number of its object."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from det_coco.errors import DataError
from det_coco.formats.content import mask_code


def object_masks(file: Path, size: tuple[int, int], count: int) -> list[dict[str, Any] | None]:
    """Read the masks of the objects of a picture.

    The border between objects, number 255, belongs to none.

    Args:
        file: in `SegmentationObject`; it may be missing.
        size: (height, width) of the picture in pixels.
        count: number of objects of the picture, in the order of its XML file.

    Returns:
        for each a run-length code, None where it has no pixel.

    Raises:
        DataError: the file is no picture, or has another size.
    """
    if not file.is_file():
        return [None] * count
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
    return [mask_code(mask) if (mask := numbers == k).any() else None for k in range(1, count + 1)]


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
