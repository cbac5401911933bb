"""A split whose boxes and masks are read as what they are, and whose pictures have the sizes that it says."""

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from det_coco._box_forms import WANTED
from det_coco._coco_api import coco_mask
from det_coco._describe import counted, some
from det_coco._forms import Reading, reading_of
from det_coco._groups import take_groups
from det_coco.errors import DataError
from det_coco.images import image_size
from det_coco.remarks import Remark

if TYPE_CHECKING:
    from det_coco.annotations import CocoIndex

_PICTURES_LOOKED_AT = 8
_MIN_SIDE = 1e-5


def with_agreeing_geometry(index: "CocoIndex") -> "CocoIndex":
    """Hold boxes, masks and the sizes of images against each other.

    Args:
        index: as if all were in COCO's form.

    Returns:
        the index, or one with other boxes or masks where another form is certain, with a remark.

    Raises:
        DataError: the form is none that is known, or one of several.
    """
    found = reading_of(index) if index.num_instances else None
    if isinstance(found, Reading):
        return _reread(index, found)
    return index if found is None else replace(index, remarks=(*index.remarks, found))


def refuse_swapped_sizes(index: "CocoIndex") -> None:
    """Refuse a split whose heights and widths are swapped, by the sizes of a few of its pictures.

    Args:
        index: the split.

    Raises:
        DataError: all that were looked at have the other size.
    """
    positions = np.unique(np.linspace(0, len(index) - 1, _PICTURES_LOOKED_AT).astype(int)) if len(index) else []
    swapped = []
    for position in positions:
        said = int(index.heights[position]), int(index.widths[position])
        try:
            sizes = {image_size(index.path(position), exif=exif) for exif in (False, True)}
        except DataError:  # which is said when it is needed
            return
        if said in sizes or said[::-1] not in sizes:
            return
        swapped.append(str(index.file_names[position]))
    if len(swapped) == len(positions) > 0:
        raise DataError(
            f"{index.annotation_file}: the height and width of its images look swapped, as "
            f"{counted(len(swapped), 'picture')} {'shows' if len(swapped) == 1 else 'show'} ({some(swapped)}). "
            "Swap them in the annotation file."
        )


def _reread(index: "CocoIndex", reading: Reading) -> "CocoIndex":
    """The index with the boxes and masks of another reading.

    Raises:
        DataError: boxes have been dropped because they made no sense in COCO's form.
    """
    if any(remark.kind == "box_dropped" for remark in index.remarks):
        raise DataError(f"{index.annotation_file}: {reading.words}, as most objects show. {WANTED}")
    size = np.stack((index.widths, index.heights, index.widths, index.heights), axis=1)
    sizes = np.repeat(size, np.diff(index.image_instances), axis=0)
    clipped = reading.boxes.clip(0, sizes)
    kept = np.flatnonzero(np.min(clipped[:, 2:] - clipped[:, :2], axis=1) > _MIN_SIDE)
    owner = np.repeat(np.arange(len(index)), np.diff(index.image_instances))[kept]
    counts = np.bincount(owner, minlength=len(index))
    message = f"{reading.words}, as boxes, masks and pictures together show; they were read so."
    remarks = [remark for remark in index.remarks if remark.kind != "box_clipped"]
    if len(kept) < len(clipped):
        lost = np.setdiff1d(np.arange(len(clipped)), kept)
        gone = f"dropped {counted(len(lost), 'box')} without area inside the image."
        remarks.append(Remark("box_dropped", gone, tuple(index.annotation_ids[lost].tolist())))
    boxes = np.concatenate((reading.boxes[:, :2], reading.boxes[:, 2:] - reading.boxes[:, :2]), axis=1)
    by_row = ("annotation_ids", "labels", "crowd", "keypoints")
    return replace(
        index,
        image_instances=np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
        boxes=clipped[kept].astype(np.float32),
        file_boxes=boxes[kept],
        masks=reading.masks[kept],
        areas=_areas(index, reading, boxes, sizes)[kept],
        remarks=(*remarks, Remark("form", message)),
        **{name: getattr(index, name)[kept] for name in by_row},
    )


def _areas(index: "CocoIndex", reading: Reading, boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The file's areas where it has some that are plausible for the boxes, and else measured ones: float64 `[N]`."""
    largest = boxes[:, 2:].prod(axis=1)
    of_misread = np.isclose(index.areas, index.file_boxes[:, 2:].prod(axis=1))
    for remark in index.remarks:
        if remark.kind in ("area_missing", "area_wrong"):
            of_misread |= np.isin(index.annotation_ids, remark.annotation_ids)
    plausible = (index.areas > 0.01 * largest) & (index.areas <= 1.5 * largest) & ~of_misread
    areas = np.where(plausible, index.areas, largest)
    masks = reading.masks
    for n in np.flatnonzero(~plausible):
        width, height = sizes[n, :2].tolist()
        polygons, bounds = take_groups(masks.polygon_points, np.arange(*masks.instance_polygons[n : n + 2]))
        runs = masks.runs[masks.instance_runs[n] : masks.instance_runs[n + 1]]
        if runs.size:
            areas[n] = runs[1::2].sum()
        elif polygons.size:
            rings = [masks.points[polygons[a:b]].reshape(-1).tolist() for a, b in pairwise(bounds)]
            areas[n] = coco_mask.area(coco_mask.merge(coco_mask.frPyObjects(rings, height, width)))
    return areas
