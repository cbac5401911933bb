"""What values of an annotation file say, whatever their type."""

import math
from typing import Any

from det_coco.doctor.findings import Change, replace

MOST = 1e9
"""Pixels that no coordinate is beyond."""


def integer(value: Any) -> int | None:
    """The whole number that a value is or says, or None."""
    if isinstance(value, str):
        try:
            value = float(value) if "." in value else int(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return int(value) if value == int(value) and abs(value) < 1 << 62 else None


def numbers(value: Any, count: int) -> list[float] | None:
    """The finite numbers that a list holds or says, or None if it is no list of that many."""
    if not isinstance(value, list | tuple) or len(value) != count:
        return None
    try:
        found = [float(v) for v in value]
    except (TypeError, ValueError, OverflowError):
        return None
    usable = all(abs(v) <= MOST for v in found)  # false for NaN
    return found if usable and not any(isinstance(v, bool) for v in value) else None


def whole_numbers(record: dict[str, Any], keys: tuple[str, ...], path: tuple[Any, ...]) -> list[Change]:
    """Bring keys that say a whole number to one, and give the changes that text needs."""
    changes = []
    for key in keys:
        number = integer(record.get(key))
        if isinstance(record.get(key), str) and number is not None:
            changes.append(replace(number, *path, key))
        if number is not None:
            record[key] = number
    return changes
