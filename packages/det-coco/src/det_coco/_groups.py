"""Groups of rows that lie one after the other in an array."""

import numpy as np

# Rows that are copied at once: few enough that the places of their items fit a cache.
_ROWS_AT_A_TIME = 8192


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


def offsets_of(counts: np.ndarray) -> np.ndarray:
    """Where each group begins, and the end of the last: int64 `[N + 1]` from counts `[N]`."""
    return np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))


def copy_groups(items: np.ndarray, starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Bring groups of rows into another order.

    Args:
        items: `[P, ...]` rows.
        starts: int64 `[N]` where each group begins.
        counts: `[N]` rows of each group.

    Returns:
        the groups one after the other; a view where they lie so already.
    """
    offsets = offsets_of(counts)
    filled = np.flatnonzero(counts)
    if filled.size == 0:
        return items[:0]
    first = int(starts[filled[0]])
    if (starts[filled] == first + offsets[filled]).all():
        return items[first : first + int(offsets[-1])]
    taken = np.empty((int(offsets[-1]), *items.shape[1:]), dtype=items.dtype)
    for row in range(0, len(counts), _ROWS_AT_A_TIME):
        part = slice(row, row + _ROWS_AT_A_TIME)
        begin, end = int(offsets[row]), int(offsets[min(row + _ROWS_AT_A_TIME, len(counts))])
        places = np.repeat(starts[part] - offsets[:-1][part], counts[part]) + np.arange(begin, end)
        np.take(items, places, axis=0, out=taken[begin:end], mode="clip")
    return taken
