"""COCO's run-length encoding in NumPy."""

import numpy as np
from torch import Tensor


def encode_rle(masks: Tensor) -> list[str]:
    """Compressed strings of `[K, h, w]`, bool or uint8, on the CPU."""
    return [text_of_counts(_counts(mask.numpy())) for mask in masks]


def _counts(mask: np.ndarray) -> list[int]:
    """Lengths of the runs of a 2-D array in column order, zeros first."""
    flat = mask.ravel(order="F") != 0
    changes = np.flatnonzero(np.diff(flat, prepend=False))
    return np.diff(changes, prepend=0, append=flat.size).tolist()


def text_of_counts(counts: list[int]) -> str:
    """Compressed string of run lengths in column order, zeros first."""
    characters = []
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            bits = value & 0x1F
            value >>= 5
            more = value != (-1 if bits & 0x10 else 0)
            characters.append(chr((bits | 0x20 if more else bits) + 48))
    return "".join(characters)
