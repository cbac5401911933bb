"""A plain decoder of COCO's compressed run lengths."""

from typing import Any

import numpy as np


def decode_rle(rle: dict[str, Any]) -> np.ndarray:
    """bool `[h, w]` of `{"size": [h, w], "counts": str}`."""
    counts: list[int] = []
    value = shift = 0
    for character in rle["counts"]:
        five = ord(character) - 48
        value |= (five & 0x1F) << shift
        shift += 5
        if five & 0x20:
            continue
        if five & 0x10:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    height, width = rle["size"]
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape(width, height).T
