"""Checks of keypoints."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from det_coco._parse_keypoints import read_skeleton
from det_coco.doctor.findings import Case, replace
from det_coco.doctor.records import Records
from det_coco.doctor.values import numbers
from det_coco.errors import DataError

_FAR = 1.0
"""Sides of the box that a keypoint may be outside of it; those of people in COCO are inside or a few pixels away."""


def check_keypoints(records: Records, sizes: np.ndarray) -> Iterator[Case]:
    """Check the keypoints of each annotation.

    Args:
        records: the split, its boxes in COCO's form.
        sizes: `[N, 2]` height, width of the pictures of its annotations; 0 where unknown.
    """
    yield from _check_skeletons(records)
    counts = _keypoint_counts(records.content["categories"])
    for n in range(len(records.rows)):
        record = records.record(n)
        given, count = record.get("keypoints"), counts.get(int(records.category[n]), 0)
        if not given or not count:
            continue
        points = numbers(given, 3 * count)
        fault = _fault(given, points, count)
        if points is None or fault:
            fix = (records.set(n, "keypoints", [0] * 3 * count), records.set(n, "num_keypoints", 0))
            yield records.case("broken_keypoints", n, f"{records.name_of(n)} has {fault}", *fix)
        else:
            yield from _check(records, n, np.array(points).reshape(-1, 3), sizes[n].tolist())


def _check_skeletons(records: Records) -> Iterator[Case]:
    for row, given in enumerate(records.content["categories"]):
        if not isinstance(given, dict) or not given.get("keypoints"):
            continue
        try:
            read_skeleton(records.file, [{"id": row, "name": "", **given}], [])
        except DataError as error:
            fault = str(error).removeprefix(f"{records.file}: ").rstrip(".")
            fix = replace([], "categories", row, "skeleton" if "'skeleton'" in fault else "keypoints")
            yield Case(kind="broken_skeleton", detail=fault, fix=(fix,))


def _keypoint_counts(categories: list[Any]) -> dict[int, int]:
    """Keypoints of the categories that have some."""
    listed = ((c.get("id"), c.get("keypoints")) for c in categories if isinstance(c, dict))
    return {number: len(names) for number, names in listed if isinstance(names, list) and type(number) is int}


def _fault(given: Any, points: list[float] | None, count: int) -> str:
    """What makes keypoints unreadable, or nothing."""
    if points is None:
        if isinstance(given, list) and len(given) != 3 * count:
            return f"{len(given)} numbers for {count} keypoints instead of {3 * count}"
        return "keypoints that are not finite numbers"
    odd = next((v for v in points[2::3] if v not in (0, 1, 2)), None)
    return "" if odd is None else f"a keypoint with the visibility {odd:g} instead of 0, 1 or 2"


def _check(records: Records, n: int, points: np.ndarray, size: list[int]) -> Iterator[Case]:
    called, (height, width) = records.name_of(n), size
    labelled = points[:, 2] > 0
    x, y = points[:, 0], points[:, 1]
    origin = labelled & (x == 0) & (y == 0)
    outside = labelled & ~origin & ((x < -1) | (y < -1) | (x > width + 1) | (y > height + 1)) & (height > 0)
    kept = np.where((origin | outside)[:, None], 0, points)
    fix = [records.set(n, "keypoints", kept.ravel().tolist())]
    if "num_keypoints" in records.record(n):
        fix.append(records.set(n, "num_keypoints", int((kept[:, 2] > 0).sum())))
    if origin.any():
        yield records.case("keypoint_at_origin", n, f"{called} has {origin.sum()} at 0, 0", *fix)
    if outside.any():
        where = f"{x[outside][0]:g}, {y[outside][0]:g} in {width} x {height} pixels"
        yield records.case("keypoints_outside", n, f"{called} has one at {where}", *fix)
    bx, by, bw, bh = records.boxes[n].tolist()
    far = labelled & ~origin & ~outside & (bw > 0) & (bh > 0)
    far &= (x < bx - _FAR * bw) | (x > bx + (1 + _FAR) * bw) | (y < by - _FAR * bh) | (y > by + (1 + _FAR) * bh)
    if far.any():
        where = f"{x[far][0]:g}, {y[far][0]:g}, its box from {bx:g}, {by:g} to {bx + bw:g}, {by + bh:g}"
        yield records.case("keypoints_off_box", n, f"{called} has one at {where}")
    said, count = records.record(n).get("num_keypoints", int(labelled.sum())), int(labelled.sum())
    if said != count:
        yield records.case("keypoint_count", n, f"{called} says {said}, and has {count}", *fix[1:])
