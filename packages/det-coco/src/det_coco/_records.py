"""What Python says of single records, row by row: the values they must have, and every message that names one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from det_coco._describe import describe, kind, some
from det_coco._json import Doubled
from det_coco.errors import DataError

MAX_ID = 1 << 62
# Far beyond any picture, and near enough that no product of coordinates overflows.
MAX_COORDINATE = 1 << 40
MISSING, WRONG = -1, -2  # of `num_keypoints`; an area is NaN where it is missing


# What is read from a record besides, so that it must not be there twice.
_READ = frozenset(
    {
        "id", "bbox", "area", "iscrowd", "ignore", "segmentation", "keypoints", "num_keypoints", "skeleton",
        "frequency", "neg_category_ids", "not_exhaustive_category_ids",
    }
)  # fmt: skip


def fields(file: Path, what: str, number: int, record: Any, wanted: Mapping[str, type]) -> list[Any]:
    """Read the values that a record must have.

    Args:
        file: named in messages.
        what: image, annotation or category.
        number: of the record in its list.
        record: the record.
        wanted: int or str for each key.

    Returns:
        a value for each key.

    Raises:
        DataError: it is no object, or a value is missing, given twice, of another type, too large or no text.
    """
    if not isinstance(record, dict):
        raise DataError(f"{file}: {what} number {number} must be an object, got {kind(record)}.")
    if isinstance(record, Doubled) and (twice := record.keys_twice & {*wanted, *_READ}):
        name = name_of(what, number, record)
        raise DataError(f"{file}: {name} has the key '{min(twice)}' twice. Keep one of them.")
    values = []
    for key, type_ in wanted.items():
        value = record.get(key)
        if type(value) is not type_ or (abs(value) > MAX_ID if type_ is int else not is_text(value)):
            value = _converted(file, name_of(what, number, record), record, key, type_)
        values.append(value)
    return values


def columns(file: Path, what: str, records: list[Any], wanted: Mapping[str, type]) -> list[list[Any]]:
    """Read the values that records must have, key by key; see `fields`.

    Args:
        file: named in messages.
        what: image, annotation or category.
        records: N records.
        wanted: int or str for each key.

    Returns:
        N values for each key.

    Raises:
        DataError: a record is wrong; the first one is named.
    """
    if all(type(record) is dict for record in records):
        found = [[record.get(key) for record in records] for key in wanted]
        if all(_usual(values, type_) for values, type_ in zip(found, wanted.values(), strict=True)):
            return found
    rows = [fields(file, what, number, record, wanted) for number, record in enumerate(records)]
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in wanted]


def _usual(values: list[Any], type_: type) -> bool:
    """Tell whether values can be taken as they are."""
    if not set(map(type, values)) <= {type_}:
        return False
    if type_ is int:
        return not values or max(max(values), -min(values)) <= MAX_ID
    return is_text("".join(values))


def _converted(file: Path, name: str, record: Mapping[str, Any], key: str, type_: type) -> int:
    """The integer that a value stands for, or what is wrong with it."""
    if key not in record:
        raise DataError(f"{file}: {name} has no '{key}'.")
    value = record[key]
    if type_ is str and type(value) is str:
        raise DataError(f"{file}: '{key}' of {name} has half of a surrogate pair, which is no character.")
    if type_ is not int or type(value) not in (int, float) or (type(value) is float and not value.is_integer()):
        expected = "an integer" if type_ is int else "a text"
        raise DataError(f"{file}: '{key}' of {name} must be {expected}, got {describe(value)}.")
    if abs(value) > MAX_ID:
        raise DataError(f"{file}: '{key}' of {name} is too large: {describe(int(value))}.")
    return int(value)


def name_of(what: str, number: int, record: Mapping[str, Any]) -> str:
    """Name a record in messages: by its id, or by its number in the file where it has none."""
    return f"{what} {some([record['id']])}" if "id" in record else f"{what} number {number}"


def is_text(value: str) -> bool:
    """Tell text that can be written from text with halves of surrogate pairs."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_number(value: Any) -> bool:
    """Tell numbers of JSON from truth values and everything else."""
    return type(value) in (int, float)


def is_coordinate(value: Any) -> bool:
    """Tell whether a number is finite and no larger than coordinates can be."""
    return abs(value) <= MAX_COORDINATE


def is_area(value: Any) -> bool:
    """Tell whether the `area` of an annotation can be one."""
    return is_number(value) and 0 <= value <= MAX_COORDINATE**2


def row_of(file: Path, number: int, record: Any) -> tuple[Any, ...]:
    """Read what stands in a row of a `Table`, segmentation and keypoints apart.

    Args:
        file: named in messages.
        number: of the record in the file.
        record: the record.

    Raises:
        DataError: it cannot be used; names it.
    """
    image_id, category_id = fields(file, "annotation", number, record, {"image_id": int, "category_id": int})
    id_ = record.get("id")
    if type(id_) is not int or abs(id_) > MAX_ID:
        id_ = number
    name = name_of("annotation", number, record)
    flags = [_flag(f"{file}: '{key}' of {name}", record.get(key, 0)) for key in ("iscrowd", "ignore")]
    box = _box(f"{file}: {name}", record)
    area, told = record.get("area"), record.get("num_keypoints", MISSING)
    if area is None:
        area = np.nan
    elif not is_area(area):
        area = -1
    if isinstance(told, int | float) and told != MISSING:
        told = int(told) if 0 <= told <= 1 << 20 and told == int(told) else WRONG
    elif told != MISSING:
        told = WRONG
    return 0, 0, id_, image_id, category_id, box, area, 0, 0, 0, told, 0, 0, *flags, 1


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, int | float) or value not in (0, 1):
        raise DataError(f"{name} must be 0 or 1, got {describe(value)}.")
    return bool(value)


def _box(name: str, record: Mapping[str, Any]) -> list[float]:
    if "bbox" not in record:
        raise DataError(f"{name} has no 'bbox'.")
    box = record["bbox"]
    if not isinstance(box, list) or not all(map(is_number, box)) or len(box) != 4:
        raise DataError(f"{name}: 'bbox' must be four numbers [x, y, width, height], got {describe(box)}.")
    if not all(map(is_coordinate, box)):
        raise DataError(
            f"{name} (image {describe(record['image_id'])}) has a box with NaN, infinite or absurdly large "
            f"coordinates: {describe(box)}."
        )
    return box


def keypoints_of(file: Path, number: int, record: Mapping[str, Any], count: int) -> list[float]:
    """Read the keypoints of an annotation.

    Args:
        file: named in messages.
        number: of the record in the file.
        record: the annotation.
        count: J, the keypoints that its data set has.

    Returns:
        `3 * J` numbers x, y and visibility of each, or none where it has no keypoints.

    Raises:
        DataError: keypoints are malformed; names the annotation.
    """
    numbers = record.get("keypoints")
    if not numbers:
        return []
    name = f"{file}: {name_of('annotation', number, record)}"
    if not isinstance(numbers, list) or not all(map(is_number, numbers)):
        raise DataError(f"{name}: 'keypoints' must be a list of numbers x, y, visibility for each keypoint.")
    if len(numbers) != 3 * count:
        raise DataError(
            f"{name} has {len(numbers)} numbers in 'keypoints', but its category lists {count} keypoints, which makes "
            f"{3 * count} numbers: x, y and visibility for each."
        )
    if not all(map(is_coordinate, numbers)):
        raise DataError(
            f"{name} (image {describe(record['image_id'])}) has a keypoint with NaN, infinite or absurdly large "
            "coordinates."
        )
    if not set(numbers[2::3]) <= {0, 1, 2}:
        raise DataError(
            f"{name}: the visibility of a keypoint must be 0 (not labelled), 1 (labelled, hidden) or 2 (visible), got "
            f"{next(v for v in numbers[2::3] if v not in (0, 1, 2))}."
        )
    return numbers
