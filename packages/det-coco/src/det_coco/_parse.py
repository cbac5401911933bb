"""From the text of a COCO annotation file to arrays, checking everything on the way."""

import json
import math
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from det_coco._describe import counted, describe, kind, some
from det_coco._find_pictures import find_pictures
from det_coco._parse_keypoints import pack_keypoints, read_skeleton
from det_coco._parse_masks import is_area, measured_area, pack_masks
from det_coco.errors import DataError
from det_coco.keypoints import Skeleton
from det_coco.lvis import name_by_address, read_federation
from det_coco.remarks import Remark

# Boxes narrower than this have no usable width (detectron2 `Boxes.nonempty`).
_MIN_SIDE = 1e-5
_MAX_SIDE = 1 << 20
_MAX_ID = 1 << 62
# Share of crowd regions that is not worth a word; COCO's is 1.2 %.
_USUAL_CROWD = 0.2


def parse(
    content: dict[str, Any], file: Path, folder: Path, check_images: bool, require_objects: bool
) -> dict[str, Any]:
    """Check and pack the content of an annotation file.

    Args:
        content: the content.
        file: the annotation file, named in messages.
        folder: folder that the file names are relative to.
        check_images: look whether every picture is there.
        require_objects: refuse a file without a single usable object.

    Returns:
        the fields of a `CocoIndex`.

    Raises:
        DataError: see `CocoIndex.load`.
    """
    if not require_objects and isinstance(content, dict):
        content = {"annotations": [], "categories": [], **content}  # as files without truth have it
    _check_parts(file, content)
    remarks: list[Remark] = []
    categories = _categories(file, content["categories"])
    if not categories and (require_objects or content["annotations"]):
        raise DataError(f"{file} has no category. List the classes under 'categories'.")
    images = _images(file, content["images"], content["categories"])
    if check_images:
        images["file_names"] = find_pictures(file, folder, images["file_names"], images["image_ids"], remarks)
    skeleton = read_skeleton(file, content["categories"], remarks)
    objects = _objects(file, content["annotations"], categories, images, skeleton, remarks)
    if require_objects and not (~objects["crowd"]).any():
        count = len(content["annotations"])
        what = f"{count} annotations, but none with a usable box that is no crowd" if count else "no annotation"
        raise DataError(f"{file} has no object to learn from or evaluate on: {what}. Check how it was exported.")
    return {
        "annotation_file": file, "image_folder": folder, "categories": categories, **images, **objects,
        "remarks": tuple(remarks),
    }  # fmt: skip


def _images(file: Path, content: list[Any], categories: list[Any]) -> dict[str, Any]:
    """Check and pack the images, by ascending id, and what is known to be in them or not."""
    name_by_address(content)
    records = _records(file, content, "image", {"id": int, "file_name": str, "height": int, "width": int})
    records.sort(key=lambda image: image["id"])
    ids = np.array([image["id"] for image in records], dtype=np.int64)
    _refuse_duplicates(file, "image", ids)
    return {
        "image_ids": ids,
        "heights": _lengths(file, records, "height"),
        "widths": _lengths(file, records, "width"),
        "file_names": np.array([image["file_name"] for image in records], dtype=np.str_),
        "federation": read_federation(file, records, categories),
    }


def _objects(
    file: Path,
    content: list[Any],
    categories: dict[int, str],
    images: dict[str, Any],
    skeleton: Skeleton | None,
    remarks: list[Remark],
) -> dict[str, Any]:
    """Check and pack the annotations that have a usable box, grouped by image, the file's order kept within one."""
    records = _records(file, content, "annotation", {"image_id": int, "category_id": int})
    ids = _annotation_ids(records)
    position = _image_positions(file, records, images["image_ids"])
    labels = _labels(file, records, categories)
    crowd = _crowd(file, records, ids, remarks)
    xywh = _boxes(file, records)

    corners = np.concatenate((xywh[:, :2], xywh[:, :2] + xywh[:, 2:]), axis=1)  # [N, 4] x1, y1, x2, y2
    sizes = np.stack((images["heights"], images["widths"]), axis=1)[position]  # [N, 2]
    clipped = corners.clip(0, sizes[:, [1, 0, 1, 0]].astype(np.float64))
    usable = np.min(clipped[:, 2:] - clipped[:, :2], axis=1) > _MIN_SIDE  # [N]
    _remark_boxes(ids, usable, np.abs(clipped - corners).max(axis=1, initial=0) > 1, remarks)
    order = np.argsort(position, kind="stable")
    order = order[usable[order]]
    kept = [records[i] for i in order]
    masks = pack_masks(file, kept, sizes[order])
    counts = np.bincount(position[order], minlength=len(images["image_ids"]))
    return {
        "image_instances": np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
        "annotation_ids": ids[order],
        "boxes": clipped[order].astype(np.float32),
        "labels": labels[order],
        "crowd": crowd[order],
        "areas": _areas(kept, ids[order], sizes[order], remarks),
        "file_boxes": xywh[order],
        "masks": masks,
        "keypoints": pack_keypoints(file, kept, ids[order], skeleton, remarks),
        "skeleton": skeleton,
    }


def read_json(file: Path) -> Any:
    """Read a JSON file.

    Args:
        file: the file.

    Raises:
        DataError: it is not there, cannot be read, or is no JSON; says where.
    """
    try:
        raw = file.read_bytes()
    except FileNotFoundError:
        raise DataError(f"The annotation file {file} does not exist.") from None
    except OSError as error:
        raise DataError(f"The annotation file {file} cannot be read: {error.strerror or error}.") from None
    try:
        return json.loads(raw)
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not JSON: byte {error.start} is not UTF-8 text.") from None
    except json.JSONDecodeError as error:
        at_end = error.pos >= len(error.doc.rstrip()) - 1 or "Unterminated" in error.msg
        end = "it ends too early, so it is probably truncated" if at_end else error.msg
        raise DataError(
            f"{file} is not valid JSON: {end} (line {error.lineno}, column {error.colno}, character {error.pos} of "
            f"{len(error.doc)}). Copy or export the file again."
        ) from None
    except RecursionError:
        raise DataError(f"{file} is not a COCO annotation file: its JSON is nested too deeply.") from None


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
                f"{', '.join(map(str, list(content)[:8])) or 'none'})."
            )
        if not isinstance(content[key], list):
            raise DataError(f"{file}: '{key}' must be a list, got {kind(content[key])}.")


def _records(file: Path, records: list[Any], what: str, fields: dict[str, type]) -> list[dict[str, Any]]:
    """Check that each record is an object with the fields, of the right type."""
    for number, record in enumerate(records):
        if not isinstance(record, dict):
            raise DataError(f"{file}: {what} number {number} must be an object, got {kind(record)}.")
        name = f"{what} {some([record['id']])}" if "id" in record else f"{what} number {number}"
        for key, wanted in fields.items():
            if key not in record:
                raise DataError(f"{file}: {name} has no '{key}'.")
            if type(record[key]) is not wanted:
                value = record[key]
                if wanted is not int or type(value) is not float or not value.is_integer():
                    expected = "an integer" if wanted is int else "a text"
                    raise DataError(f"{file}: '{key}' of {name} must be {expected}, got {describe(value)}.")
                record[key] = int(value)
            if wanted is int and abs(record[key]) > _MAX_ID:
                raise DataError(f"{file}: '{key}' of {name} is too large: {record[key]}.")
    return records


def _lengths(file: Path, images: list[dict[str, Any]], key: str) -> np.ndarray:
    for image in images:
        if not 1 <= image[key] <= _MAX_SIDE:
            raise DataError(
                f"{file}: '{key}' of image {image['id']} must be 1 to {_MAX_SIDE} pixels, got {image[key]}."
            )
    return np.array([image[key] for image in images], dtype=np.int32)


def _annotation_ids(records: list[dict[str, Any]]) -> np.ndarray:
    """Read the ids, which only messages use: int64 `[N]`; where one is missing or no integer, the row's number."""
    for number, record in enumerate(records):
        record.setdefault("id", f"number {number}")
    ids = [record["id"] for record in records]
    valid = [type(i) is int and abs(i) <= _MAX_ID for i in ids]
    for record, ok in zip(records, valid, strict=True):
        if not ok:
            record["id"] = some([record["id"]])
    return np.array([i if ok else n for n, (i, ok) in enumerate(zip(ids, valid, strict=True))], dtype=np.int64)


def _crowd(file: Path, records: list[dict[str, Any]], ids: np.ndarray, remarks: list[Remark]) -> np.ndarray:
    """Read what is neither learnt nor to be found, crowd regions and objects marked `ignore`: bool `[N]`."""
    crowd, ignored = (_flags(file, records, key) for key in ("iscrowd", "ignore"))
    if ignored.any():
        marked = f"{counted(int(ignored.sum()), 'object')} marked 'ignore'"
        message = f"{marked}, which are neither learnt nor counted as missed."
        remarks.append(Remark("object_ignored", message, tuple(ids[ignored].tolist())))
    if crowd.sum() > max(2, _USUAL_CROWD * len(records)):
        message = (
            f"{crowd.sum()} of {len(records)} objects are marked 'iscrowd', so that they are not learnt. Some "
            "exporters mark all masks with holes or of several parts so; if that is the case here, set their "
            "'iscrowd' to 0."
        )
        remarks.append(Remark("crowd_share", message, tuple(ids[crowd].tolist())))
    return crowd | ignored


def _flags(file: Path, records: list[dict[str, Any]], key: str) -> np.ndarray:
    flags = [record.get(key, 0) for record in records]
    for record, flag in zip(records, flags, strict=True):
        if not isinstance(flag, int | float) or flag not in (0, 1):
            name = f"'{key}' of annotation {some([record['id']])}"
            raise DataError(f"{file}: {name} must be 0 or 1, got {describe(flag)}.")
    return np.array(flags, dtype=bool)


def _categories(file: Path, records: list[Any]) -> dict[int, str]:
    records = _records(file, records, "category", {"id": int, "name": str})
    _refuse_duplicates(file, "category", np.array([record["id"] for record in records], dtype=np.int64))
    return {record["id"]: record["name"] for record in sorted(records, key=lambda record: record["id"])}


def _refuse_duplicates(file: Path, what: str, ids: np.ndarray) -> None:
    values, counts = np.unique(ids, return_counts=True)
    twice = values[counts > 1]
    if twice.size:
        raise DataError(f"{file}: {twice.size} {what} ids appear more than once ({some(twice)}). Ids must be unique.")


def _image_positions(file: Path, records: list[dict[str, Any]], image_ids: np.ndarray) -> np.ndarray:
    wanted = np.array([record["image_id"] for record in records], dtype=np.int64)
    found = np.searchsorted(image_ids, wanted)
    known = np.isin(wanted, image_ids)
    if not known.all():
        first = int(np.flatnonzero(~known)[0])
        raise DataError(
            f"{file}: {int((~known).sum())} annotations belong to images that are not in the file, the first is "
            f"annotation {records[first]['id']} with image_id {wanted[first]}."
        )
    return found


def _labels(file: Path, records: list[dict[str, Any]], categories: dict[int, str]) -> np.ndarray:
    label = {category: i for i, category in enumerate(categories)}
    try:
        return np.array([label[record["category_id"]] for record in records], dtype=np.int64)
    except KeyError:
        bad = [record for record in records if record["category_id"] not in label]
        raise DataError(
            f"{file}: {len(bad)} annotations have an unknown category id, the first is annotation {bad[0]['id']} with "
            f"category_id {bad[0]['category_id']} (known: {some(list(categories), 12)}). Add the category to "
            "'categories' or correct the annotations."
        ) from None


def _boxes(file: Path, records: list[dict[str, Any]]) -> np.ndarray:
    if not records:
        return np.zeros((0, 4))
    try:
        values = list(chain.from_iterable(record["bbox"] for record in records))
        flat = np.array(values, dtype=np.float64)
        fours = flat.size == 4 * len(records) and all(len(record["bbox"]) == 4 for record in records)
        # numpy reads numbers from text, pycocotools does not.
        if fours and set(map(type, values)) <= {int, float} and np.isfinite(flat).all():
            return flat.reshape(-1, 4)
    except (KeyError, TypeError, ValueError):
        pass
    return np.array([_box(file, record) for record in records], dtype=np.float64)


def _box(file: Path, record: dict[str, Any]) -> Sequence[float]:
    """Say what is wrong with a box, or give it back."""
    name = f"{file}: annotation {record['id']}"
    if "bbox" not in record:
        raise DataError(f"{name} has no 'bbox'.")
    box = record["bbox"]
    numbers = isinstance(box, list) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in box)
    if not numbers or len(box) != 4:
        raise DataError(f"{name}: 'bbox' must be four numbers [x, y, width, height], got {describe(box)}.")
    if not all(math.isfinite(v) for v in box):
        raise DataError(f"{name} (image {record['image_id']}) has a box with NaN or infinite coordinates: {box}.")
    return box


def _areas(records: list[dict[str, Any]], ids: np.ndarray, sizes: np.ndarray, remarks: list[Remark]) -> np.ndarray:
    """Read the areas, and measure those that are missing or cannot be right: float64 `[N]` square pixels."""
    areas = [record.get("area") for record in records]
    measured = [n for n, area in enumerate(areas) if not is_area(area)]
    wrong = [n for n in measured if areas[n] is not None]
    missing = [n for n in measured if areas[n] is None]
    for n in measured:
        areas[n] = measured_area(records[n], int(sizes[n, 0]), int(sizes[n, 1]))
    if wrong:
        message = (
            f"the 'area' of {counted(len(wrong), 'annotation')} is no number from 0 on "
            f"({some(records[n]['id'] for n in wrong)}); the area of the mask was taken, or that of the box."
        )
        remarks.append(Remark("area_wrong", message, tuple(ids[wrong].tolist())))
    if missing:
        message = f"{len(missing)} annotations have no 'area'; their masks or boxes are measured."
        remarks.append(Remark("area_missing", message, tuple(ids[missing].tolist())))
    return np.array(areas, dtype=np.float64)


def _remark_boxes(ids: np.ndarray, usable: np.ndarray, moved: np.ndarray, remarks: list[Remark]) -> None:
    dropped, clipped = ids[~usable], ids[usable & moved]
    if dropped.size:
        message = f"{dropped.size} boxes without area inside their image were dropped (annotations {some(dropped)})."
        remarks.append(Remark("box_dropped", message, tuple(dropped.tolist())))
    if clipped.size:
        message = f"{clipped.size} boxes reached outside their image and were clipped (annotations {some(clipped)})."
        remarks.append(Remark("box_clipped", message, tuple(clipped.tolist())))
