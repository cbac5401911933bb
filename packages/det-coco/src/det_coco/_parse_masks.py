"""Checking and packing the `segmentation` of annotations."""

import math
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from det_coco._coco_api import coco_mask
from det_coco._describe import describe
from det_coco.errors import DataError
from det_coco.polygons import Polygons
from det_coco.rle import decode_counts


def pack_masks(file: Path, records: list[dict[str, Any]], sizes: np.ndarray) -> Polygons:
    """Pack segmentations, whatever their form.

    Args:
        file: named in messages.
        records: annotations that keep their place.
        sizes: `[N, 2]` (height, width) of each annotation's image.

    Returns:
        polygons and runs; an annotation without a usable segmentation has neither.

    Raises:
        DataError: a polygon or run-length code is malformed; names the annotation.
    """
    polygons_per_instance = np.zeros(len(records), dtype=np.int64)
    runs_per_instance = np.zeros(len(records), dtype=np.int64)
    polygons: list[list[float]] = []
    runs: list[np.ndarray] = []
    for n, record in enumerate(records):
        segmentation = record.get("segmentation")
        if segmentation is None:
            continue
        if isinstance(segmentation, list):
            kept = [p for p in _as_polygons(record, segmentation) if _is_polygon(file, record, p)]
            polygons.extend(kept)
            polygons_per_instance[n] = len(kept)
        elif isinstance(segmentation, dict):
            counts = _runs(file, record, segmentation, (int(sizes[n, 0]), int(sizes[n, 1])))
            if counts[1::2].any():
                runs.append(counts.astype(np.int32))
                runs_per_instance[n] = len(counts)
        else:
            raise DataError(
                f"{file}: 'segmentation' of annotation {record['id']} must be a list of polygons or a run-length code, "
                f"got {describe(segmentation)}."
            )
    lengths = np.array([len(p) // 2 for p in polygons], dtype=np.int64)
    return Polygons(
        instance_polygons=_offsets(polygons_per_instance),
        polygon_points=_offsets(lengths),
        points=_points(file, records, polygons),
        instance_runs=_offsets(runs_per_instance),
        runs=np.concatenate(runs) if runs else np.zeros(0, dtype=np.int32),
    )


def usable_segmentation(record: dict[str, Any]) -> list[list[float]] | dict[str, Any]:
    """Give the polygons of an annotation, without lines and points, or its run-length code; an empty list for none."""
    segmentation = record.get("segmentation")
    if isinstance(segmentation, dict):
        return segmentation
    return [polygon for polygon in _as_polygons(record, segmentation or []) if len(polygon) >= 6]


def is_area(value: Any) -> bool:
    """Tell whether the `area` of an annotation can be one."""
    return type(value) in (int, float) and math.isfinite(value) and value >= 0


def measured_area(record: dict[str, Any], height: int, width: int) -> float:
    """Measure the mask of an annotation, or its box where it has none: square pixels.

    Args:
        record: the annotation, box and segmentation checked.
        height: of its image in pixels.
        width: of its image in pixels.
    """
    segmentation = usable_segmentation(record)
    if not segmentation:
        return float(record["bbox"][2] * record["bbox"][3])
    code = coco_mask.frPyObjects(segmentation, height, width) if _is_plain(segmentation) else segmentation
    return float(coco_mask.area(coco_mask.merge(code) if isinstance(code, list) else code))


def _is_plain(segmentation: list[list[float]] | dict[str, Any]) -> bool:
    """Tell polygons and plain lists of run lengths from compressed ones."""
    return isinstance(segmentation, list) or isinstance(segmentation["counts"], list)


def _as_polygons(record: dict[str, Any], segmentation: list[Any]) -> list[Any]:
    """Bring other forms of polygons to COCO's: points as pairs, or as a row of x and a row of y.

    Args:
        record: the annotation, its box checked.
        segmentation: its list.

    Returns:
        polygons as COCO writes them, each a flat list x, y, x, y, ...; what is in no known form as it is.
    """
    first = segmentation[0] if segmentation else None
    if len(segmentation) == 1 and isinstance(first, list) and len(first) >= 6 and not isinstance(first[0], list):
        return segmentation  # by far the most
    if not segmentation or not all(isinstance(polygon, list) for polygon in segmentation):
        return segmentation
    if all(polygon and isinstance(polygon[0], list) for polygon in segmentation):
        return [list(chain.from_iterable(polygon)) for polygon in segmentation]
    lengths = [len(polygon) for polygon in segmentation]
    if len(lengths) >= 3 and set(lengths) == {2}:
        return [list(chain.from_iterable(segmentation))]
    if len(lengths) == 2 and lengths[0] == lengths[1] >= 3 and _are_rows(segmentation, record["bbox"]):
        return [list(chain.from_iterable(zip(*segmentation, strict=True)))]
    return segmentation


def _are_rows(segmentation: list[Any], box: list[float]) -> bool:
    """Tell a row of x and a row of y from two polygons, by the box around them."""
    try:
        rows = np.array(segmentation, dtype=np.float64)  # [2, P]
    except (TypeError, ValueError):
        return False
    sides = np.array([[box[0], box[0] + box[2]], [box[1], box[1] + box[3]]])  # x, y: first and last
    as_rows = np.stack((rows.min(axis=1), rows.max(axis=1)), axis=1)
    as_points = np.array([[rows[:, k::2].min(), rows[:, k::2].max()] for k in (0, 1)])
    odd = rows.shape[1] % 2 == 1
    return bool(abs(as_rows - sides).max() <= 1 and (odd or abs(as_points - sides).max() > 1))


def _points(file: Path, records: list[dict[str, Any]], polygons: list[list[float]]) -> np.ndarray:
    try:
        flat = np.fromiter(chain.from_iterable(polygons), dtype=np.float64)
        if np.isfinite(flat).all() and set(map(type, chain.from_iterable(polygons))) <= {int, float}:
            return flat.reshape(-1, 2)
    except (TypeError, ValueError):
        pass
    for record in records:
        segmentation = record.get("segmentation")
        for polygon in _as_polygons(record, segmentation) if isinstance(segmentation, list) else ():
            if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in polygon):
                raise DataError(f"{file}: annotation {record['id']} has a polygon with something that is not a number.")
            if not all(math.isfinite(v) for v in polygon):
                raise DataError(
                    f"{file}: annotation {record['id']} (image {record['image_id']}) has a polygon with NaN or "
                    "infinite coordinates."
                )
    raise DataError(f"{file}: a polygon holds something that is not a finite number.")


def _is_polygon(file: Path, record: dict[str, Any], polygon: Any) -> bool:
    """Tell a polygon from a line or a point."""
    if not isinstance(polygon, list):
        raise DataError(
            f"{file}: 'segmentation' of annotation {record['id']} must be a list of polygons, each a list of numbers; "
            f"got a list with {describe(polygon)}."
        )
    if len(polygon) % 2:
        raise DataError(
            f"{file}: annotation {record['id']} has a polygon with an odd number of coordinates ({len(polygon)}); "
            "x, y pairs are expected."
        )
    return len(polygon) >= 6


def _runs(file: Path, record: dict[str, Any], code: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    name = f"{file}: the run-length code of annotation {record['id']}"
    if "size" not in code or "counts" not in code:
        raise DataError(f"{name} must have 'size' and 'counts', it has: {', '.join(map(str, code)) or 'nothing'}.")
    if code["size"] != list(size):
        raise DataError(f"{name} is for {code['size']} pixels (height, width), but its image is {list(size)}.")
    counts = code["counts"]
    if isinstance(counts, str):
        try:
            runs = decode_counts(counts)
        except ValueError as error:
            raise DataError(f"{name} cannot be read. {error} Export the annotations again.") from None
    elif isinstance(counts, list) and all(
        type(run) in (int, float) and abs(run) < 1 << 40 and run == int(run) for run in counts
    ):
        runs = np.array(counts, dtype=np.int64)
    else:
        raise DataError(f"{name} cannot be read. Its 'counts' must be a text or a list of whole numbers.")
    if runs.size and runs.min() < 0:
        raise DataError(f"{name} has a negative run.")
    if runs.sum() != size[0] * size[1]:
        raise DataError(f"{name} covers {runs.sum()} pixels, but its image has {size[0] * size[1]}.")
    return runs


def _offsets(counts: np.ndarray) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
