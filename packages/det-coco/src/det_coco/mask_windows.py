"""Run-length encoded masks of windows and mirrored pictures, brought into the picture without drawing either."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from det_coco._coco_api import coco_mask
from det_coco.rle import decode_counts, join_touching, runs_of_ones, split_at_columns


def in_picture(rle: Mapping[str, Any], x: int, y: int, size: tuple[int, int]) -> dict[str, Any]:
    """Move a mask of a window to where the window is in a picture.

    Args:
        rle: `{"size": [h, w], "counts": text or bytes}` of the window.
        x: the window's first column in the picture.
        y: its first row.
        size: (height, width) of the picture in pixels, which holds all of the window.

    Returns:
        the same of the picture, `counts` as text.

    Raises:
        ValueError: the counts cannot be read.
    """
    height = size[0]
    window_height = rle["size"][0]
    column, top, bottom = split_at_columns(*runs_of_ones(decode_counts(rle["counts"])), window_height)
    above = (column + x) * height + y
    return _of_runs(above + top, above + bottom, size)


def mirrored(rle: Mapping[str, Any]) -> dict[str, Any]:
    """Exchange left and right of a mask: `{"size": [h, w], "counts": text or bytes}` in, `counts` as text out."""
    height, width = rle["size"]
    column, top, bottom = split_at_columns(*runs_of_ones(decode_counts(rle["counts"])), height)
    above = (width - 1 - column) * height
    order = np.argsort(above + top)
    return _of_runs((above + top)[order], (above + bottom)[order], (height, width))


def union(rles: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Make one mask of several of a picture: `{"size": [h, w], "counts": text or bytes}` each, `counts` as text out."""
    return _as_text(coco_mask.merge([dict(rle) for rle in rles]))


def _of_runs(starts: np.ndarray, stops: np.ndarray, size: tuple[int, int]) -> dict[str, Any]:
    """The code of runs of ones in their order."""
    height, width = size
    starts, stops = join_touching(starts, stops)
    bounds = np.stack((starts, stops), axis=1).ravel()
    if not stops.size or stops[-1] < height * width:
        bounds = np.append(bounds, height * width)
    runs = np.diff(bounds, prepend=0)
    return _as_text(coco_mask.frPyObjects({"size": [height, width], "counts": runs.tolist()}, height, width))


def _as_text(rle: dict[str, Any]) -> dict[str, Any]:
    return {"size": [int(length) for length in rle["size"]], "counts": rle["counts"].decode("ascii")}
