"""From the content of a COCO annotation file to arrays, checking everything on the way."""

from pathlib import Path
from typing import Any

import numpy as np

from det_coco._box_forms import MANY, WANTED
from det_coco._describe import counted, kind, named, some
from det_coco._groups import offsets_of
from det_coco._json import Doubled
from det_coco._missing_sizes import refuse_missing_sizes
from det_coco._parse_keypoints import pack_keypoints, read_skeleton
from det_coco._parse_masks import measured_areas, pack_masks
from det_coco._records import columns, name_of
from det_coco._table import Table
from det_coco.errors import DataError
from det_coco.keypoints import Skeleton
from det_coco.lvis import named_by_address, read_federation
from det_coco.polygons import Polygons
from det_coco.remarks import Remark

# Boxes narrower than this have no usable width (detectron2 `Boxes.nonempty`).
_MIN_SIDE = 1e-5
_MOST = 0.5
"""Share of the boxes that may lie outside their pictures by mistake."""
_MAX_SIDE = 1 << 20
# Run lengths are 32-bit numbers, here as in pycocotools.
_MOST_PIXELS = (1 << 31) - 1
# All names are kept at the width of the longest.
_LONGEST_NAME = 1024
# Share of crowd regions that is not worth a word; COCO's is 1.2 %.
_USUAL_CROWD = 0.2


def pack(file: Path, content: Any, table: Table | None, require_objects: bool) -> dict[str, Any]:
    """Check and pack the content of an annotation file; pictures are not looked at.

    Args:
        file: the annotation file, named in messages.
        content: lists of images, annotations and categories, as JSON has them; emptied on the way.
        table: the annotations where they are read already, which takes the place of those of the content.
        require_objects: whether annotations and categories must be there.

    Returns:
        the fields of a `CocoIndex` that follow from the content, and `num_annotations`.

    Raises:
        DataError: see `CocoIndex.load`.
    """
    if not require_objects and isinstance(content, dict):
        content = {"annotations": [], "categories": [], **content}  # as files without truth have it
    _check_parts(file, content)
    remarks: list[Remark] = []
    categories = _categories(file, content["categories"])
    if not categories and (require_objects or content["annotations"] or (table and len(table.rows))):
        raise DataError(f"{file} has no category. List the classes under 'categories'.")
    images = _images(file, content.pop("images"), content["categories"], remarks)
    table = table or Table.of(content["annotations"])
    table.fill(file)
    skeleton = read_skeleton(file, content["categories"], remarks)
    objects = _objects(file, table, categories, images, skeleton, remarks)
    return {
        "categories": categories, **images, **objects, "remarks": tuple(remarks), "num_annotations": len(table.rows),
    }  # fmt: skip


def _check_parts(file: Path, content: Any) -> None:
    """Check that there are lists of images, annotations and categories."""
    if not isinstance(content, dict):
        raise DataError(
            f"{file} is not a COCO annotation file: it holds {kind(content)}, not an object with the keys images, "
            "annotations and categories."
            + (" A list is what predictions look like." if isinstance(content, list) else "")
        )
    for key in ("images", "annotations", "categories"):
        if key not in content:
            raise DataError(
                f"{file} is not a COCO annotation file: the key '{key}' is missing (it has: "
                f"{some(content, 8) or 'none'})."
            )
        if isinstance(content, Doubled) and key in content.keys_twice:
            raise DataError(f"{file} has the key '{key}' twice. Keep one of them, or join the two lists.")
        if not isinstance(content[key], list):
            raise DataError(f"{file}: '{key}' must be a list, got {kind(content[key])}.")


def _categories(file: Path, records: list[Any]) -> dict[int, str]:
    ids, names = columns(file, "category", records, {"id": int, "name": str})
    _refuse_duplicates(file, "category", np.array(ids, dtype=np.int64))
    return dict(sorted(zip(ids, names, strict=True)))


def _images(file: Path, records: list[Any], categories: list[Any], remarks: list[Remark]) -> dict[str, Any]:
    """Check and pack the images, by ascending id, and what is known to be in them or not."""
    given, records = records, [named_by_address(record) for record in records]
    unnamed = sum(record is not other for record, other in zip(records, given, strict=True))
    if unnamed:
        message = f"named {counted(unnamed, 'image')} without 'file_name' by the 'coco_url'."
        remarks.append(Remark("picture_address", message))
    refuse_missing_sizes(file, records)
    wanted = {"id": int, "file_name": str, "height": int, "width": int}
    ids, names, heights, widths = columns(file, "image", records, wanted)
    image_ids = np.array(ids, dtype=np.int64)
    _refuse_duplicates(file, "image", image_ids)
    long = [name for name in names if len(name) > _LONGEST_NAME]
    if long:
        raise DataError(
            f"{len(long)} of the {counted(len(names), 'image')} of {file} {'has' if len(long) == 1 else 'have'} a "
            f"'file_name' of more than {_LONGEST_NAME:,} characters ({some(long)}). Correct their entries."
        )
    order = np.argsort(image_ids)
    return {
        "image_ids": image_ids[order],
        **_sizes(file, image_ids, {"heights": heights, "widths": widths}, order),
        "file_names": np.array(names, dtype=np.str_)[order],
        "federation": read_federation(file, image_ids[order], [records[n] for n in order.tolist()], categories),
    }


def _sizes(file: Path, ids: np.ndarray, sides: dict[str, list[int]], order: np.ndarray) -> dict[str, np.ndarray]:
    """Check and pack heights and widths."""
    packed = {key: np.array(values, dtype=np.int64) for key, values in sides.items()}
    for key, values in packed.items():
        wrong = np.flatnonzero((values < 1) | (values > _MAX_SIDE))
        if wrong.size:
            raise DataError(
                f"{file}: '{key.removesuffix('s')}' of image {ids[wrong[0]]} must be 1 to {_MAX_SIDE} pixels, got "
                f"{values[wrong[0]]}."
            )
    heights, widths = packed.values()
    large = np.flatnonzero(heights * widths > _MOST_PIXELS)
    if large.size:
        raise DataError(
            f"{file}: image {ids[large[0]]} has {heights[large[0]]} x {widths[large[0]]} pixels (height x width), more "
            f"than the {_MOST_PIXELS:,} that a mask can have. Cut it into tiles."
        )
    return {key: values[order].astype(np.int32) for key, values in packed.items()}


def _refuse_duplicates(file: Path, what: str, ids: np.ndarray) -> None:
    values, counts = np.unique(ids, return_counts=True)
    twice = values[counts > 1]
    if twice.size:
        raise DataError(
            f"{file} gives {counted(twice.size, f'{what} id')} more than once ({some(twice)}). Ids must be unique."
        )


def _objects(
    file: Path,
    table: Table,
    categories: dict[int, str],
    images: dict[str, Any],
    skeleton: Skeleton | None,
    remarks: list[Remark],
) -> dict[str, Any]:
    """Check and pack the annotations that have a usable box, grouped by image, the file's order kept within one."""
    rows = table.rows
    position = _image_positions(file, table, images["image_ids"])
    labels = _labels(file, table, categories)
    crowd = _crowd(rows, remarks)
    xywh = rows["box"]

    corners = np.concatenate((xywh[:, :2], xywh[:, :2] + xywh[:, 2:]), axis=1)  # [N, 4] x1, y1, x2, y2
    sizes = np.stack((images["heights"], images["widths"]), axis=1)[position]  # [N, 2]
    clipped = corners.clip(0, sizes[:, [1, 0, 1, 0]].astype(np.float64))
    usable = np.min(clipped[:, 2:] - clipped[:, :2], axis=1) > _MIN_SIDE  # [N]
    _refuse_misplaced(file, table, ~usable & (xywh[:, 2:] != 0).all(axis=1))
    _remark_boxes(table, usable, np.abs(clipped - corners).max(axis=1, initial=0) > 1, remarks)
    order = np.argsort(position, kind="stable")
    order = order[usable[order]]
    keypoints = pack_keypoints(file, table, order, skeleton, remarks)
    masks = pack_masks(file, table, order, sizes[order], remarks)
    counts = np.bincount(position[order], minlength=len(images["image_ids"]))
    return {
        "image_instances": offsets_of(counts),
        "annotation_ids": rows["id"][order],
        "boxes": clipped[order].astype(np.float32),
        "labels": labels[order],
        "crowd": crowd[order],
        "areas": _areas(table, order, masks, sizes[order], remarks),
        "file_boxes": xywh[order],
        "masks": masks,
        "keypoints": keypoints,
        "skeleton": skeleton,
    }


def _image_positions(file: Path, table: Table, image_ids: np.ndarray) -> np.ndarray:
    wanted = table.rows["image_id"]
    found = np.searchsorted(image_ids, wanted)
    known = np.append(image_ids, 0)[found] == wanted
    known[found == len(image_ids)] = False
    if not known.all():
        first = int(np.flatnonzero(~known)[0])
        raise DataError(
            f"{file} lacks the images of {counted(int((~known).sum()), 'annotation')}, for example of "
            f"{name_of('annotation', first, table.record(first))} with image_id {wanted[first]}."
        )
    return found


def _labels(file: Path, table: Table, categories: dict[int, str]) -> np.ndarray:
    wanted, ids = table.rows["category_id"], np.array(list(categories), dtype=np.int64)
    unknown = np.flatnonzero(~np.isin(wanted, ids))
    if unknown.size:
        first = int(unknown[0])
        raise DataError(
            f"{file} lacks the categories of {counted(unknown.size, 'annotation')}, for example of "
            f"{name_of('annotation', first, table.record(first))} with category_id {wanted[first]} (known: "
            f"{some(categories, 12)}). Add the category to 'categories' or correct the annotations."
        )
    return np.searchsorted(ids, wanted)


def _crowd(rows: np.ndarray, remarks: list[Remark]) -> np.ndarray:
    """Read what is neither learnt nor to be found, crowd regions and objects marked `ignore`: bool `[N]`."""
    crowd, ignored = rows["crowd"] > 0, rows["ignored"] > 0
    if ignored.any():
        marked = f"{counted(int(ignored.sum()), 'object')} marked 'ignore'"
        message = f"{marked}, neither learnt nor counted as missed."
        remarks.append(Remark("object_ignored", message, tuple(rows["id"][ignored].tolist())))
    if crowd.sum() > max(2, _USUAL_CROWD * len(rows)):
        message = (
            f"{crowd.sum()} of {len(rows)} objects are marked 'iscrowd', so that they are not learnt. Some exporters "
            "mark all masks with holes or of several parts so; if that is the case here, set their 'iscrowd' to 0."
        )
        remarks.append(Remark("crowd_share", message, tuple(rows["id"][crowd].tolist())))
    return crowd | ignored


def _refuse_misplaced(file: Path, table: Table, misplaced: np.ndarray) -> None:
    """Refuse a split most of whose boxes lie outside their pictures: the boxes or the sizes mean something else."""
    if misplaced.sum() < MANY or misplaced.mean() <= _MOST:
        return
    about = np.flatnonzero(misplaced)
    raise DataError(
        f"{file}: {len(about):,} of {counted(len(misplaced), 'box')} lie outside their pictures or have negative sides "
        f"({named('annotation', _names(table, about))}). {WANTED} Or correct 'height' and 'width' of the images."
    )


def _remark_boxes(table: Table, usable: np.ndarray, moved: np.ndarray, remarks: list[Remark]) -> None:
    dropped, clipped = np.flatnonzero(~usable), np.flatnonzero(usable & moved)
    if dropped.size:
        which = named("annotation", _names(table, dropped))
        message = f"dropped {counted(dropped.size, 'box')} without area inside the image ({which})."
        remarks.append(Remark("box_dropped", message, tuple(table.rows["id"][dropped].tolist())))
    if clipped.size:
        which = named("annotation", _names(table, clipped))
        message = f"clipped {counted(clipped.size, 'box')} reaching outside the image ({which})."
        remarks.append(Remark("box_clipped", message, tuple(table.rows["id"][clipped].tolist())))


def _names(table: Table, about: np.ndarray) -> list[Any]:
    """What the file calls the first of some annotations, which another format's reader makes a place in a file."""
    ids, records = table.rows["id"], table.records
    return [records[n].get("id", f"number {n}") if n in records else int(ids[n]) for n in about[:6].tolist()]


def _areas(table: Table, order: np.ndarray, masks: Polygons, sizes: np.ndarray, remarks: list[Remark]) -> np.ndarray:
    """Read the areas, and measure those that are missing or cannot be right: float64 `[N]` square pixels."""
    areas = table.rows["area"][order]
    box = table.rows["box"][order, 2:].prod(axis=1)
    missing, wrong = np.isnan(areas), (areas < 0) | ((areas == 0) & (box >= 1)) | (areas > sizes.prod(axis=1))
    measured = np.flatnonzero(missing | wrong)
    areas[measured] = measured_areas(masks, measured, sizes, table.rows["box"][order])
    if wrong.any():
        about = order[wrong]
        message = (
            f"the 'area' of {counted(len(about), 'annotation')} is no number above 0, or larger than the picture "
            f"({some(_names(table, about))}); the area of the mask was taken, or that of the box."
        )
        remarks.append(Remark("area_wrong", message, tuple(table.rows["id"][about].tolist())))
    if missing.any():
        about = tuple(table.rows["id"][order[missing]].tolist())
        message = f"measured the masks or boxes of {counted(len(about), 'annotation')} without 'area'."
        remarks.append(Remark("area_missing", message, about))
    return areas
