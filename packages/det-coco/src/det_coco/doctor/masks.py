"""Checks of masks against boxes, areas and pictures."""

from collections.abc import Iterator

import numpy as np

from det_coco.doctor.boxes import corners_of
from det_coco.doctor.findings import Case
from det_coco.doctor.mask_facts import MaskFacts, by_columns
from det_coco.doctor.records import Records

_OFF_PIXELS, _OFF_SHARE = 3.0, 0.05
"""A side of a box may be off its mask by so many pixels, or by this share of its length, whichever is more: rounding
and inclusive corners make it 1 to 2 pixels (COCO: 1 at most)."""
_AREA_RATIO, _AREA_PIXELS = 1.5, 30.0
"""Polygons measured exactly and by pixels differ by the rim: in COCO by a ratio of up to 1.5 where a mask has a few
pixels, of 1.31 above a hundred."""
_CROWD_SHARE = 0.2
"""Share of crowd regions that is worth a word; COCO's is 1.2 %."""
_ENOUGH = 5


def check_masks(records: Records, masks: MaskFacts, sizes: np.ndarray) -> Iterator[Case]:
    """Check the mask of each annotation.

    Args:
        records: the split, its boxes in COCO's form.
        masks: of its N annotations.
        sizes: `[N, 2]` height, width of the pictures of its annotations; 0 where unknown.
    """
    corners = corners_of(records.boxes)
    for n in range(len(records.rows)):
        called = records.name_of(n)
        if masks.faults[n]:
            kind, what = masks.faults[n].split(": ", 1)
            yield records.case(kind, n, f"the mask of {called}: {what}", records.set(n, "segmentation", []))
            continue
        if masks.flat[n]:
            detail = f"{called} has {masks.flat[n]} polygon{'s' * int(masks.flat[n] > 1)} without area"
            yield records.case("degenerate_mask", n, detail, records.set(n, "segmentation", masks.kept[n]))
        if not masks.present[n]:
            continue
        if masks.by_rows[n]:
            fix = records.set(n, "segmentation", by_columns(records.record(n)["segmentation"]))
            yield records.case("row_major_mask", n, f"the code of {called} fits its box by rows, not by columns", fix)
            continue
        if masks.crossing[n]:
            yield records.case("crossing_polygon", n, f"a polygon of {called} crosses itself")
        height, width = sizes[n].tolist()
        x1, y1, x2, y2 = masks.boxes[n].tolist()
        if height and max(-x1, -y1, x2 - width, y2 - height) > 1:
            detail = f"the mask of {called} goes from {x1:g}, {y1:g} to {x2:g}, {y2:g} in {width} x {height} pixels"
            yield records.case("mask_outside", n, detail)
        else:
            yield from _check_agreement(records, n, corners[n], masks.boxes[n], sizes[n])


def check_areas(records: Records, masks: MaskFacts) -> Iterator[Case]:
    """Check the area of each annotation against its mask, or else its box."""
    measured = np.where(np.isfinite(masks.areas), masks.areas, records.boxes[:, 2:].clip(0).prod(axis=1))
    boxed = _areas_of_boxes(records, masks)
    for n, (area, right) in enumerate(zip(records.areas.tolist(), measured.tolist(), strict=True)):
        if not np.isfinite(right):
            continue
        fix, called = records.set(n, "area", right), records.name_of(n)
        if not np.isfinite(area):
            given = records.record(n).get("area")
            kind = "missing_area" if given is None else "invalid_area"
            what = "no area" if given is None else f"the area {str(given)[:20]}"
            yield records.case(kind, n, f"{called} has {what}", fix)
        elif records.crowd[n]:
            continue  # COCO's own are of another raster
        elif boxed[n]:
            detail = f"{called} has the area of its box, {area:g}, its mask {right:g} pixels"
            yield records.case("area_of_box", n, detail, fix)
        elif abs(area - right) > _AREA_PIXELS and not 1 / _AREA_RATIO < (area + 1) / (right + 1) < _AREA_RATIO:
            what = "mask" if np.isfinite(masks.areas[n]) else "box"
            yield records.case("wrong_area", n, f"{called} has the area {area:g}, its {what} {right:g} pixels", fix)


def check_forms(records: Records, masks: MaskFacts) -> Iterator[Case]:
    """Check what is odd about the masks of a split as a whole."""
    objects = ~records.crowd
    boxes = objects & masks.present & masks.is_box
    if boxes.sum() >= _ENOUGH and boxes.sum() == (objects & masks.present).sum():
        detail = f"all {boxes.sum():,} masks are the rectangle of their box"
        yield _split_case(records, "box_masks", detail, boxes)
    faulty = np.array([bool(fault) for fault in masks.faults], dtype=bool)
    bare = objects & ~masks.present & ~faulty
    if bare.any() and (objects & masks.present).any():
        detail = f"{bare.sum():,} of {objects.sum():,} objects have no mask"
        yield _split_case(records, "partial_masks", detail, bare)
    crowd = np.array([bool(records.record(n).get("iscrowd")) for n in range(len(records.rows))], dtype=bool)
    if crowd.sum() > max(2, _CROWD_SHARE * len(crowd)):
        yield _split_case(records, "crowd_share", f"{crowd.sum():,} of {len(crowd):,} annotations are crowd", crowd)


def _areas_of_boxes(records: Records, masks: MaskFacts) -> np.ndarray:
    """Tell whose area is that of the box though the mask is smaller, where most are so: bool `[N]`."""
    boxes = records.boxes[:, 2:].prod(axis=1)
    telling = np.isfinite(masks.areas) & np.isfinite(records.areas) & (masks.areas + _AREA_PIXELS < 0.9 * boxes)
    equal = (np.abs(records.areas - boxes) <= 0.005 * boxes) & (masks.areas < 0.97 * boxes)
    told = (equal & telling).sum()
    return equal if told > 0.5 * telling.sum() and told >= _ENOUGH else np.zeros_like(equal)


def _check_agreement(records: Records, n: int, box: np.ndarray, mask: np.ndarray, size: np.ndarray) -> Iterator[Case]:
    if size.all():
        box = box.clip(0, np.tile(size[::-1], 2))  # what is outside is another finding
    if not (box[2:] > box[:2]).all():  # also where it is NaN
        return
    off = np.abs(box - mask)
    allowed = np.maximum(_OFF_PIXELS, _OFF_SHARE * np.tile(mask[2:] - mask[:2], 2))
    if (off > allowed).any():
        x1, y1, x2, y2 = mask.tolist()
        detail = (
            f"the box of {records.name_of(n)} goes from {box[0]:g}, {box[1]:g} to {box[2]:g}, {box[3]:g}, its mask "
            f"from {x1:g}, {y1:g} to {x2:g}, {y2:g}"
        )
        right = [round(v, 3) for v in (x1, y1, x2 - x1, y2 - y1)]
        yield records.case("box_mask_disagree", n, detail, records.set(n, "bbox", right))


def _split_case(records: Records, kind: str, detail: str, which: np.ndarray) -> Case:
    rows = np.flatnonzero(which).tolist()
    files = tuple(dict.fromkeys(records.file_of(n) for n in rows))
    return Case(kind=kind, detail=detail, files=files, annotation_ids=tuple(records.ids[n] for n in rows))
