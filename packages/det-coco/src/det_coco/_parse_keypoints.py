"""Checking and packing the `keypoints` of categories and annotations."""

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from det_coco._describe import counted, named
from det_coco._groups import copy_groups, offsets_of
from det_coco._records import MISSING, is_text, keypoints_of
from det_coco._table import Table
from det_coco.errors import DataError
from det_coco.keypoints import Skeleton
from det_coco.remarks import Remark

# Every object takes room for all keypoints; a face in a hand-made mesh has 478.
_MOST_KEYPOINTS = 512


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
    if not all(map(is_text, names)):
        raise DataError(f"{name}: a name in 'keypoints' has half of a surrogate pair, which is no character.")
    if len(names) > _MOST_KEYPOINTS:
        raise DataError(f"{name} lists {len(names):,} keypoints; {_MOST_KEYPOINTS} are the most that can be read.")
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
    file: Path, table: Table, order: np.ndarray, skeleton: Skeleton | None, remarks: list[Remark]
) -> np.ndarray:
    """Pack the keypoints of annotations.

    Args:
        file: named in messages.
        table: all annotations.
        order: `[N]` numbers of the annotations that keep their place, in the order to pack them in.
        skeleton: the J keypoints they may have; None packs none.
        remarks: gets one about counts that are wrong.

    Returns:
        float32 `[N, J, 3]` x, y in original pixels as in the file, and visibility: 0 not labelled, 1 labelled but
        hidden, 2 visible. All 0 where an annotation has no keypoints.

    Raises:
        DataError: keypoints are malformed; names the annotation.
    """
    count = 0 if skeleton is None else len(skeleton.names)
    out = np.zeros((len(order), count, 3), dtype=np.float32)
    if not count:
        return out
    rows = table.rows[order]
    plain = np.flatnonzero(rows["keypoints"] == 3 * count)
    starts = offsets_of(table.rows["keypoints"])[order[plain]]
    numbers = copy_groups(table.keypoints, starts, rows["keypoints"][plain]).reshape(-1, count, 3)
    odd = rows["odd"] > 0
    odd |= (rows["keypoints"] > 0) & (rows["keypoints"] != 3 * count)
    odd[plain[~np.isin(numbers[..., 2], (0, 1, 2)).all(axis=1)]] = True
    out[plain] = numbers
    for place in np.flatnonzero(odd).tolist():
        number = int(order[place])
        found = keypoints_of(file, number, table.record(number), count)
        if found:
            out[place] = np.array(found, dtype=np.float64).reshape(count, 3)
    told = rows["num_keypoints"]
    wrong = rows["id"][(told != MISSING) & (told != (out[..., 2] > 0).sum(axis=1))]
    if wrong.size:
        message = (
            f"'num_keypoints' of {counted(len(wrong), 'annotation')} is not the number of their keypoints with a "
            f"visibility above 0 ({named('annotation', wrong)}). The evaluation passes over objects where it is 0, as "
            "pycocotools does."
        )
        remarks.append(Remark("keypoint_count", message, tuple(wrong.tolist())))
    return out
