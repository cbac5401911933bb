"""Checking and packing the `segmentation` of annotations."""

import math
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

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
            kept = [p for p in segmentation if _is_polygon(file, record, p)]
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
                f"got {segmentation!r}."
            )
    lengths = np.array([len(p) // 2 for p in polygons], dtype=np.int64)
    return Polygons(
        instance_polygons=_offsets(polygons_per_instance),
        polygon_points=_offsets(lengths),
        points=_points(file, records, polygons),
        instance_runs=_offsets(runs_per_instance),
        runs=np.concatenate(runs) if runs else np.zeros(0, dtype=np.int32),
    )


def _points(file: Path, records: list[dict[str, Any]], polygons: list[list[float]]) -> np.ndarray:
    try:
        flat = np.fromiter(chain.from_iterable(polygons), dtype=np.float64)
        if np.isfinite(flat).all() and set(map(type, chain.from_iterable(polygons))) <= {int, float}:
            return flat.reshape(-1, 2)
    except (TypeError, ValueError):
        pass
    for record in records:
        segmentation = record.get("segmentation")
        for polygon in segmentation if isinstance(segmentation, list) else ():
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
            f"got a list with {polygon!r}."
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
