"""Groups of rows that lie one after the other in an array."""

import numpy as np


def take_groups(offsets: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Choose some of the groups of rows that lie one after the other.

    Args:
        offsets: int64 `[G + 1]`; group g owns rows `[g]:[g + 1]`.
        groups: int64 `[H]` groups in the wanted order.

    Returns:
        int64 `[R]` rows of the groups, and their offsets, int64 `[H + 1]`.
    """
    lengths = np.diff(offsets)[groups]
    chosen = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    return np.repeat(offsets[:-1][groups] - chosen[:-1], lengths) + np.arange(chosen[-1]), chosen
