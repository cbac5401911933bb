"""Reading the records of a split one by one."""

from pathlib import Path
from typing import Any

import numpy as np

from det_coco._describe import counted, describe
from det_coco.doctor.findings import Case, remove, replace
from det_coco.doctor.reading_annotations import check_ids, read_annotations
from det_coco.doctor.records import Records
from det_coco.doctor.values import integer, whole_numbers
from det_coco.lvis import named_by_address

_MAX_SIDE = 1 << 20


def read_records(name: str, file: Path, folder: Path, content: dict[str, Any]) -> Records:
    """Read what can be used of a split.

    Args:
        name: of the split.
        file: the annotation file, which messages name.
        folder: where the pictures are.
        content: as `read_content` gives it.

    Returns:
        the records, with a case for each one that is left out or has to be mended.
    """
    cases: list[Case] = []
    categories = _categories(content, cases)
    image_rows, images, positions = _one_for_each_file(content, cases, *_images(content, cases))
    columns = read_annotations(content, cases, positions, images, categories)
    sizes = [[_length(image.get("height")), _length(image.get("width"))] for image in images]
    records = Records(
        name=name,
        file=file,
        folder=folder,
        content=content,
        image_rows=np.array(image_rows, dtype=np.int64),
        image_ids=[image["id"] for image in images],
        file_names=[image["file_name"] for image in images],
        sizes=np.array(sizes, dtype=np.int64).reshape(-1, 2),
        categories=categories,
        cases=cases,
        **columns,
    )
    cases.extend(check_ids(records))
    if records.labelled and not (~records.crowd).any():
        count = len(content["annotations"])
        what = f"{counted(count, 'annotation')}, but none that is an object" if count else "no annotation"
        cases.append(Case(kind="no_objects", detail=f"{file} has {what}"))
    return records


def _length(value: Any) -> int:
    number = integer(value)
    return number if number is not None and 1 <= number <= _MAX_SIDE else 0


def _categories(content: dict[str, Any], cases: list[Case]) -> dict[int, str]:
    known: dict[int, str] = {}
    for row, given in enumerate(content["categories"]):
        gone = remove("categories", row)
        record = dict(given) if isinstance(given, dict) else {}
        changes = whole_numbers(record, ("id",), ("categories", row))
        if changes:
            cases.append(
                Case(kind="wrong_type", detail=f"category {record['id']} has a text as id", fix=tuple(changes))
            )
        number, name = integer(record.get("id")), record.get("name")
        if number is None or not isinstance(name, str):
            detail = f"category number {row} is {describe(given)}, without an id that is a number or without a name"
            cases.append(Case(kind="broken_category", detail=detail, fix=(gone,)))
        elif number in known:
            same = known[number] == name
            detail = f"id {number} is {known[number]!r} and {name!r}"
            cases.append(Case(kind="duplicate_category_id", detail=detail, fix=(gone,) if same else ()))
        else:
            known[number] = name
    return dict(sorted(known.items()))


def _images(content: dict[str, Any], cases: list[Case]) -> tuple[list[int], list[dict[str, Any]]]:
    """Rows and records of the images that can be used."""
    rows, images = [], []
    by_id: dict[int, str] = {}
    for row, given in enumerate(content["images"]):
        record = dict(named_by_address(given)) if isinstance(given, dict) else {}
        changes = whole_numbers(record, ("id", "height", "width"), ("images", row))
        name, gone = record.get("file_name"), remove("images", row)
        name = name if isinstance(name, str) else ""
        known = {"id": integer(record.get("id")) is not None, "file_name": bool(name)}
        missing = [key for key, found in known.items() if not found]
        if missing:
            detail = f"image number {row} has no usable {' and no usable '.join(missing)}: {describe(given)}"
            cases.append(Case(kind="broken_image", detail=detail, files=(name,) if name else (), fix=(gone,)))
            continue
        if changes:
            detail = f"image {record['id']} ({name}) has a text where a number belongs"
            cases.append(Case(kind="wrong_type", detail=detail, files=(name,), fix=tuple(changes)))
        if by_id.get(record["id"]) == name:
            cases.append(Case(kind="duplicate_image", detail=f"{name} is listed twice", files=(name,), fix=(gone,)))
            continue
        if record["id"] in by_id:
            other, free = by_id[record["id"]], max(by_id) + 1 + row
            detail, fix = f"image id {record['id']} stands for {other} and {name}", replace(free, "images", row, "id")
            cases.append(Case(kind="duplicate_image_id", detail=detail, files=(other, name), fix=(fix,)))
            record["id"] = free
        by_id[record["id"]] = name
        rows.append(row)
        images.append(record)
    return rows, images


def _one_for_each_file(
    content: dict[str, Any], cases: list[Case], rows: list[int], images: list[dict[str, Any]]
) -> tuple[list[int], list[dict[str, Any]], dict[int, int]]:
    """Join images of different ids that name one file.

    Returns:
        rows and records of the images that are left, and the position among them for each id.
    """
    first: dict[str, int] = {}
    positions: dict[int, int] = {}
    for n, (row, image) in enumerate(zip(rows, images, strict=True)):
        name = image["file_name"]
        if name in first:
            other = images[first[name]]["id"]
            moved = [k for k, given in enumerate(content["annotations"]) if _belongs(given, image["id"])]
            fix = (*(replace(other, "annotations", k, "image_id") for k in moved), remove("images", row))
            ids = tuple(content["annotations"][k].get("id") for k in moved)
            detail = f"images {other} and {image['id']} are both {name}"
            cases.append(Case(kind="duplicate_image", detail=detail, files=(name,), annotation_ids=ids, fix=fix))
        else:
            first[name] = n
        positions[image["id"]] = first[name]
    kept = sorted(first.values())
    moved_to = {old: new for new, old in enumerate(kept)}
    return [rows[n] for n in kept], [images[n] for n in kept], {i: moved_to[n] for i, n in positions.items()}


def _belongs(annotation: Any, image_id: int) -> bool:
    return isinstance(annotation, dict) and integer(annotation.get("image_id")) == image_id
