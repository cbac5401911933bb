"""Packing the masks of annotations, and bounding what will be rasterised."""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from det_coco._coco_api import coco_mask
from det_coco._describe import counted, named
from det_coco._groups import copy_groups, offsets_of
from det_coco._polygon_geometry import clip_polygon, outline_length, polygon_area
from det_coco._record_masks import mask_of
from det_coco._table import Table
from det_coco.errors import DataError
from det_coco.polygons import Polygons
from det_coco.remarks import Remark

# Pixels along an outline, for each of which pycocotools needs a hundred bytes.
_LONGEST_OUTLINE = 1 << 22
# Along outlines to measure: above, their corners give the same area to a thousandth without any time.
_LONGEST_MEASURED = 1 << 16


def pack_masks(file: Path, table: Table, order: np.ndarray, sizes: np.ndarray, remarks: list[Remark]) -> Polygons:
    """Pack segmentations, whatever their form.

    Args:
        file: named in messages.
        table: all annotations.
        order: `[N]` numbers of the annotations that keep their place, in the order to pack them in.
        sizes: `[N, 2]` (height, width) of each one's image.
        remarks: gets one about polygons that are clipped.

    Returns:
        polygons and runs; an annotation without a usable segmentation has neither.

    Raises:
        DataError: a polygon or run-length code is malformed; names the annotation.
    """
    rows = table.rows
    codes = np.stack((rows["height"], rows["width"]), axis=1)[order]
    other = (codes[:, 0] > 0) & (codes != sizes).any(axis=1)
    odd = np.flatnonzero(other | (rows["odd"][order] > 0)).tolist()
    masks = {}
    for place in odd:
        number, size = int(order[place]), (int(sizes[place, 0]), int(sizes[place, 1]))
        masks[place] = mask_of(file, number, table.record(number), size)
    table.text = b""  # which is large, and needed no more
    polygons = {place: mask if isinstance(mask, list) else [] for place, mask in masks.items()}
    runs = {place: [] if isinstance(mask, list) else [mask] for place, mask in masks.items()}

    counts, starts = rows["polygons"][order], offsets_of(rows["polygons"])[order]
    points = offsets_of(table.lengths)
    point_counts, point_starts = points[starts + counts] - points[starts], points[starts]
    lengths, instance_polygons = _join(
        table.lengths,
        starts,
        counts,
        {p: np.array([len(q) // 2 for q in own], np.int32) for p, own in polygons.items()},
    )
    flat = {p: np.fromiter(chain.from_iterable(own), np.float64).reshape(-1, 2) for p, own in polygons.items()}
    packed, _ = _join(table.points, point_starts, point_counts, flat)
    packed_runs, instance_runs = _join(
        table.runs, offsets_of(rows["runs"])[order], rows["runs"][order],
        {p: np.concatenate([np.zeros(0, np.int32), *own]) for p, own in runs.items()},
    )  # fmt: skip
    masks = Polygons(
        instance_polygons=instance_polygons,
        polygon_points=offsets_of(lengths),
        points=packed,
        instance_runs=instance_runs,
        runs=packed_runs,
    )
    return _bounded(file, masks, sizes, rows["id"][order], remarks)


def _join(
    items: np.ndarray, starts: np.ndarray, counts: np.ndarray, others: Mapping[int, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Take rows from a column, some of them from elsewhere; give them and their offsets `[N + 1]`."""
    if others:
        starts, counts = starts.copy(), counts.astype(np.int64)
        places, sizes = list(others), [len(row) for row in others.values()]
        starts[places] = len(items) + offsets_of(np.array(sizes))[:-1]
        counts[places] = sizes
        items = np.concatenate((items, *others.values()))
    return copy_groups(items, starts, counts), offsets_of(counts)


def _bounded(file: Path, masks: Polygons, sizes: np.ndarray, ids: np.ndarray, remarks: list[Remark]) -> Polygons:
    """Clip polygons that reach far out of their picture, and refuse those too long to rasterise."""
    first = masks.polygon_points[:-1]
    if first.size == 0:
        return masks
    owner = np.repeat(np.arange(len(sizes)), np.diff(masks.instance_polygons))  # [Q]
    low = np.minimum.reduceat(masks.points, first, axis=0)
    high = np.maximum.reduceat(masks.points, first, axis=0)
    margin = sizes.max(axis=1)[owner, None]
    far = ((low < -margin) | (high > sizes[owner][:, ::-1] + margin)).any(axis=1)
    if far.any():
        about = np.unique(owner[far])
        count = int(far.sum())
        message = (
            f"{counted(count, 'polygon')} reached out of the image by more than the image's longer side and "
            f"{'was' if count == 1 else 'were'} clipped there ({named('annotation', ids[about])})."
        )
        remarks.append(Remark("polygon_clipped", message, tuple(ids[about].tolist())))
        masks = _clipped(masks, far, owner, sizes)
        return _bounded(file, masks, sizes, ids, remarks)
    counts = np.diff(masks.polygon_points)
    for polygon in np.flatnonzero(counts * (high - low).max(axis=1) > _LONGEST_OUTLINE):
        length = outline_length(masks.points[masks.polygon_points[polygon] : masks.polygon_points[polygon + 1]])
        if length > _LONGEST_OUTLINE:
            raise DataError(
                f"{file}: annotation {ids[owner[polygon]]} has a polygon with an outline of {length:,.0f} pixels, more "
                f"than the {_LONGEST_OUTLINE:,} that can be rasterised. Draw it with fewer points or as a run-length "
                "code."
            )
    return masks


def _clipped(masks: Polygons, far: np.ndarray, owner: np.ndarray, sizes: np.ndarray) -> Polygons:
    """Clip some polygons to their picture and as much again around it; those that have no point there are dropped."""
    bounds = masks.polygon_points
    others = {}
    for polygon in np.flatnonzero(far).tolist():
        height, width = sizes[owner[polygon]].tolist()
        margin = max(height, width)
        points = masks.points[bounds[polygon] : bounds[polygon + 1]]
        others[polygon] = clip_polygon(points, (-margin, -margin), (width + margin, height + margin))
    points, bounds = _join(masks.points, bounds[:-1], np.diff(bounds), others)
    lengths = np.diff(bounds)
    kept = np.bincount(owner[lengths > 0], minlength=len(sizes))
    return Polygons(
        instance_polygons=offsets_of(kept),
        polygon_points=offsets_of(lengths[lengths > 0]),
        points=points,
        instance_runs=masks.instance_runs,
        runs=masks.runs,
    )


def measured_areas(masks: Polygons, rows: np.ndarray, sizes: np.ndarray, boxes: np.ndarray) -> list[float]:
    """Measure masks, or boxes where there is none: square pixels.

    Args:
        masks: of all N instances.
        rows: `[M]` the instances to measure.
        sizes: `[N, 2]` (height, width) of the image of each instance.
        boxes: `[N, 4]` x, y, width, height.

    Returns:
        M areas.
    """
    bounds = masks.polygon_points
    areas = []
    for n in rows.tolist():
        polygons = range(masks.instance_polygons[n], masks.instance_polygons[n + 1])
        runs = masks.runs[masks.instance_runs[n] : masks.instance_runs[n + 1]]
        mask = runs if runs.size else [masks.points[bounds[q] : bounds[q + 1]].reshape(-1).tolist() for q in polygons]
        areas.append(_area(mask, sizes[n].tolist(), boxes[n].tolist()))
    return areas


def measured_area(record: dict[str, Any], height: int, width: int) -> float:
    """Measure the mask of an annotation, or its box where it has none: square pixels.

    Args:
        record: the annotation as JSON has it, checked.
        height: of its image in pixels.
        width: of its image in pixels.
    """
    mask = mask_of(Path("given"), 0, record, (height, width))
    return _area(mask, (height, width), record["bbox"])


def _area(mask: list[list[float]] | np.ndarray, size: Sequence[int], box: Sequence[float]) -> float:
    if isinstance(mask, np.ndarray):
        return float(mask[1::2].sum(dtype=np.int64))
    outlines = [np.reshape(polygon, (-1, 2)) for polygon in mask]
    if sum(map(outline_length, outlines)) > _LONGEST_MEASURED:
        return sum(map(polygon_area, outlines))
    if mask:
        return float(coco_mask.area(coco_mask.merge(coco_mask.frPyObjects(mask, *size))))
    return float(box[2] * box[3])
