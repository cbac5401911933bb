"""The `segmentation` of single records: forms that are read besides COCO's own, and every message about one."""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from det_coco._describe import describe, some
from det_coco._json import Doubled
from det_coco._records import is_coordinate, is_number, name_of
from det_coco.errors import DataError
from det_coco.rle import decode_counts


def mask_of(file: Path, number: int, record: dict[str, Any], size: tuple[int, int]) -> list[list[float]] | np.ndarray:
    """Read the segmentation of an annotation, whatever its form.

    Args:
        file: named in messages.
        number: of the record in the file.
        record: the annotation, its box checked.
        size: (height, width) of its image in pixels.

    Returns:
        polygons of at least three points, each a flat list x, y, x, y, ..., or int32 `[R]` runs; empty without a mask.

    Raises:
        DataError: the segmentation is malformed; names the annotation.
    """
    segmentation = record.get("segmentation")
    name = name_of("annotation", number, record)
    if segmentation is None:
        return []
    if isinstance(segmentation, dict):
        runs = _runs(f"{file}: the run-length code of {name}", segmentation, size)
        return runs if runs[1::2].any() else []
    if not isinstance(segmentation, list):
        raise DataError(
            f"{file}: 'segmentation' of {name} must be a list of polygons or a run-length code, got "
            f"{describe(segmentation)}."
        )
    polygons = as_polygons(segmentation, record["bbox"])
    for polygon in polygons:
        _check_polygon(file, name, record, polygon)
    return [polygon for polygon in polygons if len(polygon) >= 6]


def as_polygons(segmentation: list[Any], box: Sequence[float]) -> list[Any]:
    """Bring other forms of polygons to COCO's: points as pairs, or as a row of x and a row of y.

    Args:
        segmentation: a list.
        box: x, y, width, height of the object.

    Returns:
        polygons as COCO writes them, each a flat list x, y, x, y, ...; what is in no known form as it is.
    """
    first = segmentation[0] if segmentation else None
    if len(segmentation) == 1 and isinstance(first, list) and len(first) >= 6 and not isinstance(first[0], list):
        return segmentation  # by far the most
    if not segmentation or not all(isinstance(polygon, list) for polygon in segmentation):
        return segmentation
    if all(polygon and all(isinstance(point, list) for point in polygon) for polygon in segmentation):
        return [list(chain.from_iterable(polygon)) for polygon in segmentation]
    lengths = [len(polygon) for polygon in segmentation]
    if len(lengths) >= 3 and set(lengths) == {2}:
        return [list(chain.from_iterable(segmentation))]
    if len(lengths) == 2 and lengths[0] == lengths[1] >= 3 and _are_rows(segmentation, box):
        return [list(chain.from_iterable(zip(*segmentation, strict=True)))]
    return segmentation


def _are_rows(segmentation: list[list[Any]], box: Sequence[float]) -> bool:
    """Tell a row of x and a row of y from two polygons, by the box around them."""
    if not all(is_number(value) and is_coordinate(value) for row in segmentation for value in row):
        return False
    rows = np.array(segmentation, dtype=np.float64)  # [2, P]
    sides = np.array([[box[0], box[0] + box[2]], [box[1], box[1] + box[3]]])  # x, y: first and last
    as_rows = np.stack((rows.min(axis=1), rows.max(axis=1)), axis=1)
    as_points = np.array([[rows[:, k::2].min(), rows[:, k::2].max()] for k in (0, 1)])
    odd = rows.shape[1] % 2 == 1
    return bool(abs(as_rows - sides).max() <= 1 and (odd or abs(as_points - sides).max() > 1))


def _check_polygon(file: Path, name: str, record: Mapping[str, Any], polygon: Any) -> None:
    if not isinstance(polygon, list):
        raise DataError(
            f"{file}: 'segmentation' of {name} must be a list of polygons, each a list of numbers; got a list with "
            f"{describe(polygon)}."
        )
    if len(polygon) % 2:
        raise DataError(
            f"{file}: {name} has a polygon with an odd number of coordinates ({len(polygon)}); x, y pairs are expected."
        )
    if not all(map(is_number, polygon)):
        raise DataError(f"{file}: {name} has a polygon with something that is not a number.")
    if not all(map(is_coordinate, polygon)):
        raise DataError(
            f"{file}: {name} (image {describe(record['image_id'])}) has a polygon with NaN, infinite or absurdly "
            "large coordinates."
        )


def _runs(name: str, code: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    if "size" not in code or "counts" not in code:
        raise DataError(f"{name} must have 'size' and 'counts', it has: {some(code) or 'nothing'}.")
    if isinstance(code, Doubled) and (twice := code.keys_twice & {"size", "counts"}):
        raise DataError(f"{name} has the key '{min(twice)}' twice. Keep one of them.")
    if code["size"] != list(size):
        raise DataError(
            f"{name} is for {describe(code['size'])} pixels (height, width), but its image is {list(size)}."
        )
    counts, pixels = code["counts"], size[0] * size[1]
    if isinstance(counts, str):
        try:
            counts = decode_counts(counts).tolist()
        except ValueError as error:
            raise DataError(f"{name} cannot be read. {error} Export the annotations again.") from None
    elif not isinstance(counts, list) or not all(
        type(run) is int or (type(run) is float and run.is_integer()) for run in counts
    ):
        raise DataError(f"{name} cannot be read. Its 'counts' must be a text or a list of whole numbers.")
    if min(counts, default=0) < 0:
        raise DataError(f"{name} has a negative run.")
    # Before the sum, which many large runs would carry beyond 64 bits.
    if max(counts, default=0) > pixels:
        raise DataError(f"{name} has a run that covers {describe(max(counts))} pixels, but its image has {pixels}.")
    if sum(counts) != pixels:
        raise DataError(f"{name} covers {sum(counts)} pixels, but its image has {pixels}.")
    return np.array(counts, dtype=np.int32)
