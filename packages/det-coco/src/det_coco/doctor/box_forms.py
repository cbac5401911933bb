"""Boxes that a whole split has in another form than COCO's x, y, width, height in pixels."""

from itertools import product
from typing import Any

import numpy as np

from det_coco._box_forms import FORMS, FRACTIONS, PER_CENT, PIXELS, SCALES, USUAL, possible_forms, scale_of
from det_coco._parse_masks import measured_area
from det_coco.doctor.findings import Case, Change
from det_coco.doctor.records import Records

_ENOUGH = 5
"""Boxes that must agree on a form. Of x, y, width, height as COCO has them, a random one fits the limits of two corners
with a chance of a quarter, five of them one time in a thousand; and some must fit no picture besides."""
_NEAR = 2.0
"""Pixels that a box read rightly is off its mask at most."""
_OTHERS = ("x1, y1, x2, y2", "centre x, centre y, width, height")
_KINDS = {
    FRACTIONS: "fraction_boxes",
    PER_CENT: "percent_boxes",
    _OTHERS[0]: "corner_boxes",
    _OTHERS[1]: "centre_boxes",
}
"""What a form is called as a finding."""


def find_form(
    boxes: np.ndarray, sizes: np.ndarray, images: np.ndarray, masks: np.ndarray
) -> tuple[str, np.ndarray | None] | None:
    """Recognise the form of the boxes of a split.

    Args:
        boxes: float64 `[N, 4]` as in the file, finite.
        sizes: `[N, 2]` height, width of their pictures in pixels.
        images: `[N]` what tells the pictures apart.
        masks: float64 `[N, 4]` x1, y1, x2, y2 around the masks, or NaN.

    Returns:
        the kind of finding, and x1, y1, x2, y2 in pixels `[N, 4]`, or None where these cannot be told; None alone for
        COCO's form, or where no other is certain.
    """
    if not len(boxes):
        return None
    sides = sizes[:, [1, 0, 1, 0]].astype(np.float64)
    scale, certain = scale_of(boxes, sides, images)
    other = certain and scale != PIXELS
    masked = np.asarray(np.isfinite(masks).all(axis=1))
    around = masks * sides if (masks[masked] <= 1.01).all() else masks
    if masked.sum() >= (1 if other else 2):
        found = _by_masks(boxes, sides, around, masked)
        if found is not None or not other:
            return found
    if not other:
        found = _by_pictures(boxes, sizes)
        return None if found is None else (_KINDS[found], FORMS[found](boxes))
    corners = list(possible_forms(boxes, sides, scale).values())
    told = bool(corners) and all(np.abs(one - corners[0]).max() <= 1 for one in corners)
    return _KINDS[scale], corners[0] if told else None


def check_form(records: Records, sizes: np.ndarray, masks: np.ndarray) -> list[Case]:
    """Check the form of the boxes, and bring those of the records to COCO's.

    Args:
        records: the split; its boxes are converted.
        sizes: `[N, 2]` height, width of the pictures of its annotations.
        masks: float64 `[N, 4]` x1, y1, x2, y2 around the masks, or NaN; in fractions they are converted too.
    """
    usable = np.isfinite(records.boxes).all(axis=1) & (sizes > 0).all(axis=1) & (records.boxes[:, 2:] != 0).all(axis=1)
    usable = np.flatnonzero(usable)
    found = find_form(records.boxes[usable], sizes[usable], records.image[usable], masks[usable])
    if found is None:
        return []
    form, corners = found
    shown, misread = records.boxes[usable[0]].tolist(), records.boxes[:, 2:].prod(axis=1)
    fix = []
    if corners is not None:
        records.boxes[usable] = np.concatenate((corners[:, :2], corners[:, 2:] - corners[:, :2]), axis=1)
        fix += [records.set(n, "bbox", [round(v, 3) for v in records.boxes[n].tolist()]) for n in usable.tolist()]
    fractional = form == "fraction_boxes" and not (masks > 1.01).any()
    for n in usable.tolist():
        mask = records.record(n).get("segmentation") if np.isfinite(masks[n]).all() else None
        if fractional and mask is not None:
            scale = sizes[n, ::-1].astype(np.float64)
            mask = _scaled(mask, scale)
            fix.append(records.set(n, "segmentation", mask))
            masks[n] *= np.tile(scale, 2)
        if corners is not None and np.isfinite(records.areas[n]):
            fix += _area_in_pixels(records, n, mask, sizes[n], misread[n])
    detail = f"all {len(usable):,} boxes are so: that of {records.name_of(int(usable[0]))} is {shown}"
    files = tuple(dict.fromkeys(records.file_of(n) for n in usable.tolist()))
    ids = tuple(records.ids[n] for n in usable.tolist())
    return [Case(kind=form, detail=detail, files=files, annotation_ids=ids, fix=tuple(fix))]


def _area_in_pixels(records: Records, n: int, mask: Any, size: np.ndarray, misread: float) -> list[Change]:
    """Measure an area anew that is that of the misread box, or cannot be one of the box in pixels."""
    box, area = records.boxes[n].tolist(), float(records.areas[n])
    if 0.01 < area / (box[2] * box[3]) <= 1.5 and not np.isclose(area, misread):
        return []
    height, width = size.tolist()
    area = measured_area({"bbox": box, "segmentation": mask}, height, width)
    return [records.set(n, "area", round(area, 3))]


def _scaled(segmentation: list[list[float]], scale: np.ndarray) -> list[list[float]]:
    return [(np.reshape(polygon, (-1, 2)) * scale).round(3).ravel().tolist() for polygon in segmentation]


def _by_masks(
    boxes: np.ndarray, sides: np.ndarray, masks: np.ndarray, masked: np.ndarray
) -> tuple[str, np.ndarray] | None:
    """The form in which nine of ten boxes fit their masks where COCO's does for fewer than half, and the boxes in it.

    Nothing where there is none.
    """

    def share(corners: np.ndarray) -> float:
        return float((np.abs(corners - masks).max(axis=1) <= _NEAR)[masked].mean())

    if share(FORMS[USUAL](boxes)) > 0.5:
        return None
    for (scale, whole), form in product(SCALES.items(), (USUAL, *_OTHERS)):
        corners = FORMS[form](boxes) * (sides / whole if whole else 1.0)
        if share(corners) >= 0.9:
            return _KINDS[scale if whole else form], corners
    return None


def _by_pictures(boxes: np.ndarray, sizes: np.ndarray) -> str | None:
    """The form in which all boxes fit their pictures where COCO's does not."""
    if len(boxes) < _ENOUGH or boxes.min() < -1:
        return None
    width, height = sizes[:, 1], sizes[:, 0]
    right, bottom = boxes[:, 0] + boxes[:, 2], boxes[:, 1] + boxes[:, 3]
    if ((right > width + 2) | (bottom > height + 2)).mean() <= 0.1:
        return None
    corners, centres = _OTHERS
    if (boxes[:, 2:] > boxes[:, :2]).all() and (boxes[:, 2:] <= sizes[:, ::-1] + 1).all():
        return corners
    inside = (boxes[:, :2] >= boxes[:, 2:] / 2 - 1).all()
    inside &= (boxes[:, :2] + boxes[:, 2:] / 2 <= sizes[:, ::-1] + 1).all()
    return centres if inside else None
