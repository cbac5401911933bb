"""Run-length encoded masks: COCO's text form to run lengths, run lengths to horizontal edges.

`R` runs of one mask, `E` edges. Runs alternate zeros and ones, zeros first, through the image column by column.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from det_coco._coco_api import coco_mask

# Bytes of code that are measured at once: few enough for a cache.
_CODES_AT_A_TIME = 1 << 17


def decode_rle(rle: Mapping[str, Any]) -> np.ndarray:
    """Decode a mask of a results or an annotation file.

    Args:
        rle: `size`, which is height and width in pixels, and `counts`, compressed or a list of run lengths.

    Returns:
        bool `[h, w]`, true inside.
    """
    if isinstance(rle["counts"], list):
        return runs_to_bitmap(np.array(rle["counts"], dtype=np.int64), *rle["size"]).astype(bool)
    return coco_mask.decode(dict(rle)).astype(bool)


def decode_counts(text: str | bytes) -> np.ndarray:
    """Read COCO's compressed `counts` text.

    Args:
        text: compressed counts.

    Returns:
        int64 `[R]` run lengths, not checked against an image size.

    Raises:
        ValueError: the text has characters outside the code or ends inside a number.
    """
    return decode_many([text])[0]


def decode_many(texts: Sequence[str | bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Read many of COCO's compressed `counts` texts at once.

    Each number takes one or more characters of 6 bits (offset 48): 5 bits of value, lowest first, and a bit that says
    whether more follow; the highest bit of the last one is the sign. From the fourth number on, the difference to the
    number before the last is stored (pycocotools, `maskApi.c`, `rleFrString`).

    Args:
        texts: `T` compressed counts.

    Returns:
        int64 `[R]` run lengths of all texts, and int64 `[T + 1]`: text t owns runs `[t]:[t + 1]`.

    Raises:
        ValueError: a text has characters outside the code or ends inside a number.
    """
    raw = [text.encode("utf-8", "surrogatepass") if isinstance(text, str) else bytes(text) for text in texts]
    stops = np.cumsum([len(text) for text in raw], dtype=np.int64)  # [T]
    code = np.frombuffer(b"".join(raw), dtype=np.uint8).astype(np.int64) - 48  # [characters]
    if code.size == 0:
        return np.zeros(0, dtype=np.int64), np.zeros(len(raw) + 1, dtype=np.int64)
    if code.min() < 0 or code.max() > 63:
        raise ValueError("The counts have characters outside COCO's code.")
    last = (code & 0x20) == 0  # [characters] is the last one of its number
    if not last[stops[stops > 0] - 1].all():
        raise ValueError("The counts end inside a number.")
    ends = np.flatnonzero(last)  # [R]
    starts = np.concatenate(([0], ends[:-1] + 1))
    digits = ends - starts + 1
    if digits.max() > 12:
        raise ValueError("The counts have a number of more than 60 bits.")
    place = np.arange(code.size) - np.repeat(starts, digits)  # [characters] place within its number
    values = np.add.reduceat((code & 0x1F) << (5 * place), starts)
    values = np.where((code[ends] & 0x10) != 0, values - (np.int64(1) << (5 * digits)), values)  # [R]
    offsets = np.concatenate(([0], np.searchsorted(ends, stops)))
    place = np.arange(values.size) - np.repeat(offsets[:-1], np.diff(offsets))  # [R] place within its text
    # The first three numbers of a text are plain, each later one adds to the second before it.
    for chain in (np.flatnonzero(place % 2 == 1), np.flatnonzero((place % 2 == 0) & (place > 0))):
        sums = np.cumsum(values[chain])
        first = np.flatnonzero(place[chain] <= 2)
        before = (sums - values[chain])[first]
        values[chain] = sums - np.repeat(before, np.diff(np.append(first, chain.size)))
    return values, offsets


def runs_of_ones(runs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find where a mask is, pixels counted column by column.

    Args:
        runs: integer `[R]` run lengths.

    Returns:
        starts, stops: int64 `[O]` each, the first pixel of O runs of ones and the one behind the last; none is empty,
        and no two touch.
    """
    ends = np.cumsum(runs, dtype=np.int64)
    stops = ends[1::2]
    starts = ends[0::2][: stops.size]
    keep = stops > starts
    return join_touching(starts[keep], stops[keep])


def join_touching(starts: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Make one run of those that follow each other without a gap: int64 `[O]` in, fewer or as many out."""
    apart = starts[1:] > stops[:-1]
    ends = np.ones(min(starts.size, 1), dtype=bool)
    return starts[np.concatenate((ends, apart))], stops[np.concatenate((apart, ends))]


def split_at_columns(starts: np.ndarray, stops: np.ndarray, height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut runs of ones where a column of the image ends.

    Args:
        starts: int64 `[O]`, the first pixel of each run, counted column by column.
        stops: int64 `[O]`, the one behind its last.
        height: image height in pixels.

    Returns:
        column, top, bottom: int64 `[P]` each, P pieces, one for each run and column; rows from top to above bottom.
    """
    first = starts // height
    columns = (stops - 1) // height - first + 1  # [O] columns that each run touches
    begin = np.cumsum(columns) - columns
    column = np.arange(columns.sum()) - np.repeat(begin - first, columns)
    top = np.zeros(column.size, dtype=np.int64)
    top[begin] = starts % height
    bottom = np.full(column.size, height, dtype=np.int64)
    bottom[begin + columns - 1] = (stops - 1) % height + 1
    return column, top, bottom


def runs_to_edges(runs: np.ndarray, height: int) -> np.ndarray:
    """Turn run lengths into the horizontal edges of the mask's outline.

    COCO's polygon rasterisation looks only at where the outline crosses the middle of each pixel column. So the
    horizontal parts of the outline say everything: below an odd number of them a pixel is inside. Vertical parts are
    left out; neighbouring columns that change at the same height share one edge.

    Args:
        runs: integer `[R]` run lengths that sum to height * width.
        height: image height in pixels.

    Returns:
        float32 `[E, 4]` edges x1, y1, x2, y2 with y1 = y2 and x1 < x2, on pixel boundaries, ordered by (y, x).
    """
    starts, stops = runs_of_ones(runs)
    if starts.size == 0:
        return np.zeros((0, 4), dtype=np.float32)
    column, top, bottom = split_at_columns(starts, stops, height)
    y = np.concatenate((top, bottom))
    x = np.concatenate((column, column))
    order = np.lexsort((x, y))
    y, x = y[order], x[order]
    new = np.concatenate(([True], (y[1:] != y[:-1]) | (x[1:] != x[:-1] + 1)))
    head = np.flatnonzero(new)
    tail = np.concatenate((head[1:], [y.size])) - 1
    return np.stack((x[head], y[head], x[tail] + 1, y[head]), axis=1).astype(np.float32)


def runs_to_bitmap(runs: np.ndarray, height: int, width: int) -> np.ndarray:
    """Decode run lengths to a bitmap.

    Args:
        runs: integer `[R]` run lengths that sum to height * width.
        height: h, image height in pixels.
        width: w, image width in pixels.

    Returns:
        uint8 `[h, w]` of 0 and 1.
    """
    bits = np.repeat((np.arange(len(runs)) & 1).astype(np.uint8), runs)
    return np.ascontiguousarray(bits.reshape(width, height).T)


def bitmap_to_runs(bitmap: np.ndarray) -> np.ndarray:
    """Encode a bitmap as run lengths, column by column, zeros first.

    Args:
        bitmap: `[h, w]` of any dtype, zero outside and non-zero inside.

    Returns:
        int64 `[R]` run lengths that sum to height * width.
    """
    flat = np.asarray(bitmap).astype(bool).T.reshape(-1)
    if flat.size == 0:
        return np.zeros(0, dtype=np.int64)
    change = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    bounds = np.concatenate(([0], change, [flat.size]))
    runs = np.diff(bounds)
    return np.concatenate(([0], runs)) if flat[0] else runs


def measure_codes(codes: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Measure many masks without decoding them to runs.

    A code holds differences of runs (see `decode_counts`), so a run counts once for each later run of its colour.

    Args:
        codes: uint8 `[B]`, here B bytes: compressed `counts` of K masks, one after the other.
        offsets: int64 `[K + 1]`; mask k owns codes `[k]:[k + 1]`.

    Returns:
        pixels: int64 `[K]` pixels that the runs cover, which should be the picture's; -1 where a code cannot be read.
        areas: int64 `[K]` pixels of them that are in the mask.
    """
    pixels, areas = np.zeros((2, len(offsets) - 1), dtype=np.int64)
    bounds = np.searchsorted(offsets[:-1], np.arange(0, offsets[-1], _CODES_AT_A_TIME))
    for first, last in pairwise([*np.unique(bounds).tolist(), len(offsets) - 1]):
        part = codes[offsets[first] : offsets[last]], offsets[first : last + 1] - offsets[first]
        pixels[first:last], areas[first:last] = _measure_at_once(*part) or _measure_each(*part)
    return pixels, areas


def _measure_at_once(codes: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Measure masks together; None where a code cannot be read, or is empty."""
    digits = codes - np.uint8(48)  # below 48 becomes large
    ends = np.flatnonzero((digits & 0x20) == 0).astype(np.int32)
    numbers = np.searchsorted(ends, offsets)  # [K + 1] first number of each mask
    lengths = np.diff(ends, prepend=np.int32(-1))
    whole = (digits[offsets[1:] - 1] & 0x20 == 0).all() and (np.diff(numbers) > 0).all()
    if not whole or digits.max(initial=0) > 63 or lengths.max(initial=0) > 6:
        return None
    # The highest digit holds the sign; most numbers have but this one.
    values = ((digits[ends] & 0x1F) ^ 16).astype(np.int32) - 16
    for back in range(1, int(lengths.max(initial=1))):
        rows = np.flatnonzero(lengths > back)
        values[rows] = values[rows] * 32 + (digits[ends[rows] - back] & 0x1F)
    counts = np.diff(numbers).astype(np.int32)
    later = np.repeat(numbers[1:].astype(np.int32), counts) - np.arange(len(ends), dtype=np.int32)  # from here on
    colour = (np.repeat(counts, counts) - later) & 1
    times = (later + 1) >> 1
    times[numbers[:-1]] = 1  # no later run adds to the first
    covered = values * times.astype(np.int64)
    return np.add.reduceat(covered, numbers[:-1]), np.add.reduceat(covered * colour, numbers[:-1])


def _measure_each(codes: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Measure masks one by one, of which some cannot be read."""
    pixels, areas = np.zeros((2, len(offsets) - 1), dtype=np.int64)
    for k, (first, last) in enumerate(pairwise(offsets.tolist())):
        try:
            runs = decode_counts(codes[first:last].tobytes())
        except ValueError:
            pixels[k] = -1
            continue
        pixels[k], areas[k] = runs.sum(), runs[1::2].sum()
    return pixels, areas
