"""Grey values of more than 8 bits."""

import logging
from functools import lru_cache
from pathlib import Path

import numpy as np

from det_coco.errors import DataError

_log = logging.getLogger("det_coco")


def to_8_bits(path: Path, values: np.ndarray) -> np.ndarray:
    """Scale grey values to 8 bits by the range they use, see `det_coco.load_image`.

    Args:
        path: the file.
        values: integer or floating-point `[h, w]`.

    Returns:
        uint8 `[h, w]`.

    Raises:
        DataError: values are negative, not finite or too large.
    """
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high < 1 << 16):
        raise DataError(
            f"The image {path} has grey values from {low:g} to {high:g}, whose meaning is not known. Convert it to 8 "
            "or 16 bits."
        )
    if values.dtype.kind == "f" and high <= 1:
        _say_once(path.parent, "floating-point values from 0 to 1, which are multiplied by 255")
        return (values * 255 + 0.5).astype(np.uint8)
    bits = next(bits for bits in (8, 12, 16) if high < 1 << bits)
    factor = 1 << (bits - 8)
    done = f"are divided by {factor}" if factor > 1 else "stay as they are"
    held = f"{bits} bits" if bits == 16 and values.dtype.itemsize == 2 else f"{bits} bits in a wider format"
    _say_once(path.parent, f"values of {held}, which {done}")
    return (values / factor).astype(np.uint8)


def check_upper_bits(path: Path, pixels: np.ndarray) -> None:
    """Refuse a picture of 16 bits a colour that is black because its values lie in the lower bits.

    Args:
        path: the file.
        pixels: uint8 `[h, w, 3]`, the upper 8 bits.

    Raises:
        DataError: no value is above 12 bits.
    """
    if pixels.max() < 1 << 4:
        raise DataError(
            f"The image {path} has colours of 16 bits, but values of at most 12, and would be read as black. Convert "
            "it to 8 bits."
        )


@lru_cache(maxsize=1024)
def _say_once(folder: Path, what: str) -> None:
    _log.warning("%s: some grey pictures have %s.", folder, what)
