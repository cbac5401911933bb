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
    _say_once(path.parent, f"values of {bits} bits in a wider format, which {done}")
    return (values / factor).astype(np.uint8)


@lru_cache(maxsize=1024)
def _say_once(folder: Path, what: str) -> None:
    _log.warning("%s: some grey pictures have %s.", folder, what)
