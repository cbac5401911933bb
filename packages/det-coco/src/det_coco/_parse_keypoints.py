"""Checking and packing the `keypoints` of categories and annotations."""

import math
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from det_coco._describe import some
from det_coco.errors import DataError
from det_coco.keypoints import Skeleton
from det_coco.remarks import Remark


def read_skeleton(file: Path, categories: list[dict[str, Any]], remarks: list[Remark]) -> Skeleton | None:
    """Read which keypoints the categories have.

    Args:
        file: named in messages.
        categories: categories of the file, their `id` and `name` checked.
        remarks: gets one where categories have different skeletons.

    Returns:
        the skeleton that all categories with keypoints share; None where no category has any, or, with a remark,
        where they have different ones.

    Raises:
        DataError: `keypoints` or `skeleton` of a category is malformed; names the category.
    """
    skeletons = {
        category["name"]: _skeleton(f"{file}: category {category['id']} ({category['name']})", category)
        for category in categories
        if category.get("keypoints")
    }
    different = set(skeletons.values())
    if len(different) > 1:
        names = " and ".join(list(skeletons)[:5])
        message = f"the keypoints are not read, because the categories {names} list different ones."
        remarks.append(Remark("skeletons_differ", message))
    return different.pop() if len(different) == 1 else None


def _skeleton(name: str, category: dict[str, Any]) -> Skeleton:
    names, limbs = category["keypoints"], category.get("skeleton") or []
    if not isinstance(names, list) or not all(isinstance(keypoint, str) for keypoint in names):
        raise DataError(f"{name}: 'keypoints' must be a list of names.")
    pairs = isinstance(limbs, list) and all(isinstance(limb, list) and len(limb) == 2 for limb in limbs)
    if not pairs or not all(type(end) is int for limb in limbs for end in limb):
        raise DataError(f"{name}: 'skeleton' must be a list of pairs of keypoint numbers.")
    # COCO counts keypoints from 1. A file that mentions keypoint 0 counts from 0.
    first = 0 if 0 in chain.from_iterable(limbs) else 1
    try:
        return Skeleton.from_names(names, [(a - first, b - first) for a, b in limbs])
    except ValueError:
        if len(set(names)) != len(names):
            raise DataError(f"{name}: 'keypoints' lists a name twice. Give each keypoint its own name.") from None
        raise DataError(
            f"{name}: 'skeleton' must join keypoints by their numbers, 1 to {len(names)}. Correct or remove it."
        ) from None


def pack_keypoints(
    file: Path, records: list[dict[str, Any]], ids: np.ndarray, skeleton: Skeleton | None, remarks: list[Remark]
) -> np.ndarray:
    """Pack the keypoints of annotations.

    Args:
        file: named in messages.
        records: N annotations.
        ids: their ids, for remarks.
        skeleton: the J keypoints they may have; None packs none.
        remarks: gets one about counts that are wrong.

    Returns:
        float32 `[N, J, 3]` x, y in original pixels as in the file, and visibility: 0 not labelled, 1 labelled but
        hidden, 2 visible. All 0 where an annotation has no keypoints.

    Raises:
        DataError: keypoints are malformed; names the annotation.
    """
    count = 0 if skeleton is None else len(skeleton.names)
    out = np.zeros((len(records), count, 3), dtype=np.float32)
    if not count:
        return out
    rows = [n for n, record in enumerate(records) if record.get("keypoints")]
    given = [records[n] for n in rows]
    for record in given:
        _check(file, record, count)
    numbers = np.fromiter(chain.from_iterable(record["keypoints"] for record in given), dtype=np.float64)
    out[rows] = numbers.reshape(-1, count, 3)
    labelled = (out[..., 2] > 0).sum(axis=1)
    told = [record.get("num_keypoints", n) for record, n in zip(records, labelled.tolist(), strict=True)]
    wrong = [n for n, (a, b) in enumerate(zip(told, labelled.tolist(), strict=True)) if a != b]
    if wrong:
        message = (
            f"'num_keypoints' of {len(wrong)} annotations is not the number of their keypoints with a visibility "
            f"above 0 (annotations {some(ids[wrong])}). The evaluation passes over objects where it is 0, as "
            "pycocotools does."
        )
        remarks.append(Remark("keypoint_count", message, tuple(ids[wrong].tolist())))
    return out


def _check(file: Path, record: dict[str, Any], count: int) -> None:
    """Say what is wrong with the keypoints of an annotation."""
    name, numbers = f"{file}: annotation {record['id']}", record["keypoints"]
    if not isinstance(numbers, list) or not set(map(type, numbers)) <= {int, float}:
        raise DataError(f"{name}: 'keypoints' must be a list of numbers x, y, visibility for each keypoint.")
    if len(numbers) != 3 * count:
        raise DataError(
            f"{name} has {len(numbers)} numbers in 'keypoints', but its category lists {count} keypoints, which makes "
            f"{3 * count} numbers: x, y and visibility for each."
        )
    if not all(map(math.isfinite, numbers)):
        raise DataError(f"{name} (image {record['image_id']}) has a keypoint with NaN or infinite coordinates.")
    if not set(numbers[2::3]) <= {0, 1, 2}:
        raise DataError(
            f"{name}: the visibility of a keypoint must be 0 (not labelled), 1 (labelled, hidden) or 2 (visible), got "
            f"{next(v for v in numbers[2::3] if v not in (0, 1, 2))}."
        )
