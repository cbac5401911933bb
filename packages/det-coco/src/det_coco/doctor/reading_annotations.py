"""Reading the annotations of a split one by one."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from det_coco._describe import describe, some
from det_coco._records import is_area
from det_coco.doctor.findings import Case, remove, replace
from det_coco.doctor.records import Records
from det_coco.doctor.values import integer, numbers, whole_numbers


def read_annotations(
    content: dict[str, Any],
    cases: list[Case],
    positions: dict[int, int],
    images: list[dict[str, Any]],
    categories: dict[int, str],
) -> dict[str, Any]:
    """Read the annotations that can be used.

    Args:
        content: lists of the file.
        cases: gets what is found.
        positions: image id -> position in `images`.
        images: those that can be used.
        categories: category id -> name.

    Returns:
        the columns of `Records` that are of annotations.
    """
    rows, ids, image, category, boxes, areas, crowd = [], [], [], [], [], [], []
    for row, given in enumerate(content["annotations"]):
        record = dict(given) if isinstance(given, dict) else {}
        changes = whole_numbers(record, ("image_id", "category_id"), ("annotations", row))
        found = _unusable(row, given, record, positions, categories)
        if found is not None:
            cases.append(found)
            continue
        position, number = positions[record["image_id"]], record.get("id")
        name = images[position]["file_name"]
        own = {"files": (name,), "annotation_ids": (number,)}
        called = f"annotation {some([number])} in {name}"
        if changes:
            cases.append(Case(kind="wrong_type", detail=f"{called} has a text as id", fix=tuple(changes), **own))
        box = numbers(record.get("bbox"), 4)
        if box is not None and any(isinstance(v, str) for v in record["bbox"]):
            fix = replace(box, "annotations", row, "bbox")
            cases.append(Case(kind="wrong_type", detail=f"{called} has a box of texts", fix=(fix,), **own))
        flag, flag_cases = _flags(row, record, called, own)
        cases.extend(flag_cases)
        area = record.get("area")
        rows.append(row)
        ids.append(number)
        image.append(position)
        category.append(record["category_id"])
        boxes.append([math.nan] * 4 if box is None else box)
        areas.append(float(area) if area is not None and is_area(area) else math.nan)
        crowd.append(flag)
    return {
        "rows": np.array(rows, dtype=np.int64),
        "ids": ids,
        "image": np.array(image, dtype=np.int64),
        "category": np.array(category, dtype=np.int64),
        "boxes": np.array(boxes, dtype=np.float64).reshape(-1, 4),
        "areas": np.array(areas, dtype=np.float64),
        "crowd": np.array(crowd, dtype=bool),
    }


def _unusable(
    row: int, given: Any, record: dict[str, Any], positions: dict[int, int], categories: dict[int, str]
) -> Case | None:
    """Say why an annotation belongs nowhere."""
    ids, called = (record.get("id"),), f"annotation {some([record.get('id', f'number {row}')])}"
    fix = (remove("annotations", row),)
    for key, known, kind_ in (
        ("image_id", positions, "unknown_image"), ("category_id", categories, "unknown_category"),
    ):  # fmt: skip
        value = record.get(key)
        if type(value) is not int:
            what = f"is {describe(given)}" if not record else f"has no usable '{key}'"
            return Case(kind="broken_annotation", detail=f"{called} {what}", annotation_ids=ids, fix=fix)
        if value not in known:
            return Case(kind=kind_, detail=f"{called} has {key} {value}", annotation_ids=ids, fix=fix)
    return None


def _flags(row: int, record: dict[str, Any], called: str, own: dict[str, Any]) -> tuple[bool, list[Case]]:
    """Whether an annotation is a crowd region or to be ignored, and what is wrong with how it says so."""
    cases, marked = [], False
    for key in ("iscrowd", "ignore"):
        value = record.get(key, 0)
        said = {"0": 0, "1": 1, "false": 0, "true": 1, "none": 0}.get(str(value).lower())
        if not isinstance(value, int | float) or value not in (0, 1):
            fix = replace(said or 0, "annotations", row, key)
            detail = f"'{key}' of {called} is {describe(value)}"
            cases.append(Case(kind="invalid_flag", detail=detail, fix=(fix,), **own))
            marked |= bool(said)
        else:
            marked |= bool(value)
    return marked, cases


def check_ids(records: Records) -> Iterator[Case]:
    """Check annotation ids, which other programs go by."""
    # The rows that cannot be used have ids too.
    taken = [i for i in map(integer, _given_ids(records)) if i is not None]
    free, seen = max(taken, default=0) + 1, set()
    for n, number in enumerate(records.ids):
        found, detail = "", ""
        if type(number) is not int:
            found, detail = "missing_annotation_id", f"{records.name_of(n)} has no id that is a number"
        elif number in seen:
            found, detail = "duplicate_annotation_id", f"id {number} is also that of {records.name_of(n)}"
        elif number == 0:
            found, detail = "annotation_id_zero", f"{records.name_of(n)} has id 0"
        if found:
            yield records.case(found, n, detail, records.set(n, "id", free))
            free += 1
        if type(number) is int:
            seen.add(number)


def _given_ids(records: Records) -> Iterator[Any]:
    yield from (row.get("id") for row in records.content["annotations"] if isinstance(row, dict))
