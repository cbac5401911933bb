"""Boxes that a whole split has in another form than COCO's x, y, width, height in pixels."""

import numpy as np

from det_coco.doctor.findings import Case
from det_coco.doctor.records import Records

_ENOUGH = 5
"""Boxes that must agree on a form. Of x, y, width, height as COCO has them, a random one fits the limits of two corners
with a chance of a quarter, five of them one time in a thousand; and some must fit no picture besides."""
_NEAR = 2.0
"""Pixels that a box read rightly is off its mask at most."""


def convert(form: str, boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Bring boxes to COCO's form.

    Args:
        form: `fraction_boxes`, `percent_boxes`, `corner_boxes` or `centre_boxes`.
        boxes: float64 `[N, 4]`.
        sizes: `[N, 2]` height, width of their pictures.

    Returns:
        float64 `[N, 4]` x, y, width, height in pixels.
    """
    scale = sizes[:, [1, 0, 1, 0]]
    if form == "fraction_boxes":
        return boxes * scale
    if form == "percent_boxes":
        return boxes * scale / 100
    if form == "corner_boxes":
        return np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), axis=1)
    return np.concatenate((boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, 2:]), axis=1)


def find_form(boxes: np.ndarray, sizes: np.ndarray, masks: np.ndarray) -> str | None:
    """Recognise the form of the boxes of a split.

    Args:
        boxes: float64 `[N, 4]` as in the file, or NaN.
        sizes: `[N, 2]` height, width of their pictures; 0 where unknown.
        masks: float64 `[N, 4]` x1, y1, x2, y2 around the masks, or NaN.

    Returns:
        a form that `convert` knows; None for COCO's, or where it is not certain.
    """
    known = np.isfinite(boxes).all(axis=1) & (sizes > 0).all(axis=1) & (boxes[:, 2:] != 0).all(axis=1)
    boxes, sizes, masks = boxes[known], sizes[known].astype(np.float64), masks[known]
    if not len(boxes):
        return None
    if boxes.min() >= 0 and boxes.max() <= 1.01 and sizes.min() > 2:
        return "fraction_boxes"
    masked = np.isfinite(masks).all(axis=1) & (masks > 1.01).any(axis=1)
    if masked.sum() >= 2:
        return _by_masks(boxes[masked], sizes[masked], masks[masked])
    return _by_pictures(boxes, sizes)


def check_form(records: Records, sizes: np.ndarray, masks: np.ndarray) -> list[Case]:
    """Check the form of the boxes, and bring those of the records to COCO's.

    Args:
        records: the split; its boxes are converted.
        sizes: `[N, 2]` height, width of the pictures of its annotations.
        masks: float64 `[N, 4]` x1, y1, x2, y2 around the masks, or NaN; in fractions they are converted too.
    """
    form = find_form(records.boxes, sizes, masks)
    if form is None:
        return []
    usable = np.flatnonzero(np.isfinite(records.boxes).all(axis=1) & (sizes > 0).all(axis=1))
    shown = records.boxes[usable[0]].tolist()
    records.boxes[usable] = convert(form, records.boxes[usable], sizes[usable])
    fractional = form == "fraction_boxes" and not (masks > 1.01).any()
    fix = []
    for n in usable.tolist():
        fix.append(records.set(n, "bbox", [round(v, 3) for v in records.boxes[n].tolist()]))
        if fractional and np.isfinite(masks[n]).all():
            scale = sizes[n, ::-1].astype(np.float64)
            fix.append(records.set(n, "segmentation", _scaled(records.record(n)["segmentation"], scale)))
            masks[n] *= np.tile(scale, 2)
    detail = f"all {len(usable):,} boxes are so: that of {records.name_of(int(usable[0]))} is {shown}"
    files = tuple(dict.fromkeys(records.file_of(n) for n in usable.tolist()))
    ids = tuple(records.ids[n] for n in usable.tolist())
    return [Case(kind=form, detail=detail, files=files, annotation_ids=ids, fix=tuple(fix))]


def _scaled(segmentation: list[list[float]], scale: np.ndarray) -> list[list[float]]:
    return [(np.reshape(polygon, (-1, 2)) * scale).round(3).ravel().tolist() for polygon in segmentation]


def _by_masks(boxes: np.ndarray, sizes: np.ndarray, masks: np.ndarray) -> str | None:
    """The form in which nine of ten boxes fit their masks where COCO's does for fewer than half."""

    def share(xywh: np.ndarray) -> float:
        corners = np.concatenate((xywh[:, :2], xywh[:, :2] + xywh[:, 2:]), axis=1)
        return float((np.abs(corners - masks).max(axis=1) <= _NEAR).mean())

    if share(boxes) > 0.5:
        return None
    shares = {form: share(convert(form, boxes, sizes)) for form in ("percent_boxes", "corner_boxes", "centre_boxes")}
    best = max(shares, key=lambda form: shares[form])
    return best if shares[best] >= 0.9 else None


def _by_pictures(boxes: np.ndarray, sizes: np.ndarray) -> str | None:
    """The form in which all boxes fit their pictures where COCO's does not fit, or makes no use of them."""
    if len(boxes) < _ENOUGH or boxes.min() < -1:
        return None
    width, height = sizes[:, 1], sizes[:, 0]
    right, bottom = boxes[:, 0] + boxes[:, 2], boxes[:, 1] + boxes[:, 3]
    over = ((right > width + 2) | (bottom > height + 2)).mean()
    if over > 0.1:
        ordered = (boxes[:, 2:] > boxes[:, :2]).all() and (boxes[:, 2:] <= sizes[:, ::-1] + 1).all()
        if ordered:
            return "corner_boxes"
        inside = (boxes[:, :2] >= boxes[:, 2:] / 2 - 1).all()
        inside &= (boxes[:, :2] + boxes[:, 2:] / 2 <= sizes[:, ::-1] + 1).all()
        return "centre_boxes" if inside else None
    # Twenty boxes over pictures of several hundred pixels that all end before 100, one of them right there.
    most = max(right.max(), bottom.max())
    large = sizes.min() >= 200
    return "percent_boxes" if large and len(boxes) >= 4 * _ENOUGH and 90 <= most <= 100.5 else None
