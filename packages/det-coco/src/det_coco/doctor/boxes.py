"""Checks of boxes, areas and twins."""

from collections.abc import Iterator

import numpy as np

from det_coco._describe import describe
from det_coco.doctor.findings import Case
from det_coco.doctor.records import Records

CELL = 16.0
"""Square pixels of a cell of the finest level of a pyramid, stride 4."""
_WHOLE = 0.99
"""Share of its picture from which a box is the whole of it."""
_TWIN, _ONE_BOX = 0.9, 0.95
"""IoU of two boxes from which they are one, of one class and of two. In 310 pictures of COCO two objects of one class
come up to 0.87, of two classes to 0.94; a copy moved by half a pixel has 0.93 at a side of 30 pixels."""
_TWIN_MASKS = 0.8
"""The least ratio of the areas of their masks: a person on a sofa has the box of the sofa, but not its mask."""


def corners_of(boxes: np.ndarray) -> np.ndarray:
    """Corners x1, y1, x2, y2 of boxes x, y, width, height, both float64 `[N, 4]`."""
    return np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), axis=1)


def check_boxes(records: Records, sizes: np.ndarray, masks: np.ndarray) -> Iterator[Case]:
    """Check each box against its picture.

    Args:
        records: the split, its boxes in COCO's form.
        sizes: `[N, 2]` height, width of the pictures of its annotations; 0 where unknown.
        masks: float64 `[N, 4]` x1, y1, x2, y2 around the masks, or NaN.
    """
    for n, (box, (height, width)) in enumerate(zip(records.boxes.tolist(), sizes.tolist(), strict=True)):
        called, masked = records.name_of(n), bool(np.isfinite(masks[n]).all())
        from_mask = records.set(n, "bbox", _xywh(masks[n])) if masked else records.drop(n)
        if not np.isfinite(box).all():
            given = records.record(n).get("bbox")
            kind, what = ("missing_box", "has no box") if given in (None, []) else ("broken_box", describe(given))
            what = what if kind == "missing_box" else f"has the box {what}"
            yield records.case(kind, n, f"{called} {what}", from_mask)
            continue
        x, y, w, h = box
        if w < 0 or h < 0:
            fix = records.set(n, "bbox", [min(x, x + w), min(y, y + h), abs(w), abs(h)])
            yield records.case("negative_box", n, f"{called} has a box {w:g} x {h:g}", fix)
        elif w * h == 0:
            yield records.case("empty_box", n, f"{called} has a box {w:g} x {h:g}", from_mask)
        elif height and (x >= width or y >= height or x + w <= 0 or y + h <= 0):
            detail = f"{called} has a box from {x:g}, {y:g} to {x + w:g}, {y + h:g} in {width} x {height} pixels"
            yield records.case("box_outside", n, detail, from_mask)
        elif height and max(-x, -y, x + w - width, y + h - height) > 1:
            cut = np.array([max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)])
            detail = f"{called} goes from {x:g}, {y:g} to {x + w:g}, {y + h:g} in {width} x {height} pixels"
            yield records.case("box_over_edge", n, detail, records.set(n, "bbox", _xywh(cut)))
        elif w * h < CELL:
            yield records.case("tiny_box", n, f"{called} has a box of {w:g} x {h:g} pixels")
        elif height and not records.crowd[n] and w * h >= _WHOLE * width * height:
            yield records.case("giant_box", n, f"{called} has a box of {w:g} x {h:g} of {width} x {height} pixels")


def check_twins(records: Records, areas: np.ndarray) -> Iterator[Case]:
    """Find objects that are annotated twice, as one class or as two.

    Args:
        records: the split, its boxes in COCO's form.
        areas: float64 `[N]` of the masks, NaN without one.
    """
    usable = np.isfinite(records.boxes).all(axis=1) & (records.boxes[:, 2:] > 0).all(axis=1) & ~records.crowd
    for rows in records.by_image():
        rows = rows[usable[rows]]
        iou = pairwise_iou(corners_of(records.boxes[rows]))
        first, second = np.nonzero(np.triu(iou >= _least(records.category[rows]), 1))
        twins: set[int] = set()
        for n, m in zip(rows[first].tolist(), rows[second].tolist(), strict=True):
            pair = sorted((areas[n], areas[m]))
            if np.isfinite(pair).all() and pair[0] < _TWIN_MASKS * pair[1]:
                continue
            names = [records.categories[int(records.category[k])] for k in (n, m)]
            if records.category[n] == records.category[m]:
                if m not in twins and n not in twins:
                    twins.add(m)
                    detail = (
                        f"annotations {records.ids[n]} and {records.ids[m]} in {records.file_of(n)} are one {names[0]}"
                    )
                    yield records.case("twin_annotations", n, detail, records.drop(m), others=(m,))
            else:
                detail = (
                    f"annotations {records.ids[n]} ({names[0]}) and {records.ids[m]} ({names[1]}) in "
                    f"{records.file_of(n)} share one box"
                )
                yield records.case("conflicting_labels", n, detail, others=(m,))


def _least(labels: np.ndarray) -> np.ndarray:
    """IoU from which two boxes are one: float64 `[M, M]`."""
    return np.where(labels[:, None] == labels[None], _TWIN, _ONE_BOX)


def pairwise_iou(corners: np.ndarray) -> np.ndarray:
    """IoU of each box with each: float64 `[M, M]` of `[M, 4]` x1, y1, x2, y2."""
    low = np.maximum(corners[:, None, :2], corners[None, :, :2])
    high = np.minimum(corners[:, None, 2:], corners[None, :, 2:])
    shared = (high - low).clip(0).prod(axis=2)
    areas = (corners[:, 2:] - corners[:, :2]).prod(axis=1)
    return shared / np.maximum(areas[:, None] + areas[None] - shared, 1e-12)


def check_copies(records: Records, digests: list[bytes]) -> Iterator[Case]:
    """Find different pictures with the very same boxes, to the last digit.

    Args:
        records: the split.
        digests: I hashes of the pixels, empty where a picture cannot be read.
    """
    first: dict[bytes, int] = {}
    for position, rows in enumerate(records.by_image()):
        boxes = records.boxes[rows]
        # One box may well be that of a whole picture or a fixed region.
        if len(rows) < 2 or not np.isfinite(boxes).all() or len(np.unique(boxes, axis=0)) < 2:
            continue
        other = first.setdefault(boxes.tobytes(), position)
        if other != position and digests[other] != digests[position]:
            names = records.file_names[other], records.file_names[position]
            ids = tuple(records.ids[n] for n in rows.tolist())
            detail = f"{names[1]} has the very same {len(rows)} boxes as {names[0]}"
            yield Case(kind="copied_annotations", detail=detail, files=names, annotation_ids=ids)


def _xywh(corners: np.ndarray) -> list[float]:
    x1, y1, x2, y2 = corners.tolist()
    return [round(v, 3) for v in (x1, y1, x2 - x1, y2 - y1)]
