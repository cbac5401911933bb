"""AP of parts of the objects: by size, by the number of objects in their image, by whether the border cuts them."""

from dataclasses import dataclass, replace

import numpy as np

from det_coco.annotations import CocoIndex
from det_coco.curves import Curves, chosen_names, mean
from det_coco.detections import Detections
from det_coco.intervals import average_precision, mean_of
from det_coco.matches import Matches
from det_coco.protocol import Protocol
from det_coco.report.outcomes import FOUND

# Up to and with so many objects in an image.
_NUMBERS = (1, 3, 7, 15, 31, np.iinfo(np.int64).max)
# COCO's end of large areas, beyond all pictures.
_LARGEST = 1e10
# Pixels to the border at which a box counts as cut by it.
_BORDER = 1.0


@dataclass(frozen=True, slots=True)
class Group:
    """Some of the objects, and how well they are found.

    Attributes:
        by: what they are grouped by: "size", "objects in the image" or "border".
        name: which of these groups it is.
        objects: how many there are.
        ap: AP of these objects; -1 where there are none.
        ap50: AP at an IoU of 0.5; -1 where that is no threshold.
        ar: share of them that is found, mean over IoU thresholds and classes.
    """

    by: str
    name: str
    objects: int
    ap: float
    ap50: float
    ar: float


def groups(
    index: CocoIndex, detections: Detections, matches: Matches, curves: Curves, protocol: Protocol
) -> list[Group]:
    """Evaluate parts of the objects.

    Args:
        index: the split.
        detections: of its images.
        matches: at the protocol's thresholds.
        curves: of the same evaluation.
        protocol: the rules.
    """
    return [
        *_by_size(index, matches, curves),
        *_by_number(index, matches, protocol),
        *_by_border(index, detections, matches, protocol),
    ]


def _by_size(index: CocoIndex, matches: Matches, curves: Curves) -> list[Group]:
    found = []
    areas = index.areas[matches.truth]
    for place, (name, (smallest, largest)) in enumerate(curves.protocol.area_ranges.items(), start=1):
        best = curves.precision[:, :, :, place, -1]
        shown = {"s": "small", "m": "medium", "l": "large"}.get(name, name)
        ends = [f"{end**0.5:g}²" for end in (smallest, largest)]
        upper = f"up to {ends[1]}" if smallest == 0 else f"{ends[0]} to {ends[1]}"
        words = f"{shown} ({upper if largest < _LARGEST else f'from {ends[0]}'} pixels)"
        count = int(((areas >= smallest) & (areas <= largest)).sum())
        half = best[np.array(curves.protocol.iou_thresholds) == FOUND]
        values = (mean(part) for part in (best, half, curves.recall[:, :, place, -1]))
        found.append(Group("size", words, count, *values))
    return found


def _by_number(index: CocoIndex, matches: Matches, protocol: Protocol) -> list[Group]:
    counts = np.bincount(matches.truth_images, minlength=len(index))  # [I]
    found, least = [], 1
    for most in _NUMBERS:
        chosen = (counts >= least) & (counts <= most)
        name = f"{least}" if least == most else f"{least} to {most}" if most < _NUMBERS[-1] else f"{least} and more"
        if chosen.any():
            part = _part(
                matches,
                np.broadcast_to(~chosen[matches.images], matches.objects.shape),
                chosen[matches.truth_images],
            )
            found.append(_group("objects in the image", name, index, part, protocol))
        least = most + 1
    return found


def _by_border(index: CocoIndex, detections: Detections, matches: Matches, protocol: Protocol) -> list[Group]:
    """As COCO does it for sizes: a detection belongs with the object that it finds, else where its own box is."""
    image_of = np.repeat(np.arange(len(index)), np.diff(index.image_instances))
    cut_objects = _cut(index, index.file_boxes, image_of)  # [N]
    cut_detections = _cut(index, detections.boxes[matches.detections], matches.images)  # [D]
    cut = np.where(matches.objects >= 0, np.append(cut_objects, False)[matches.objects], cut_detections)
    found = []
    for name, wanted in (("cut by the border", True), ("whole", False)):
        part = _part(matches, cut != wanted, cut_objects[matches.truth] == wanted)
        found.append(_group("border", name, index, part, protocol))
    return found


def _cut(index: CocoIndex, boxes: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Whether boxes `[N, 4]` x, y, width, height reach the border of their image: bool `[N]`."""
    far = np.stack((index.widths, index.heights), axis=1)[images] - _BORDER
    near, beyond = boxes[:, :2] <= _BORDER, boxes[:, :2] + boxes[:, 2:] >= far
    return np.any(near | beyond, axis=1)


def _part(matches: Matches, ignored: np.ndarray, truth: np.ndarray) -> Matches:
    """The matches with more detections ignored, bool `[T, D]`, and some of the objects, bool `[G]`."""
    return replace(
        matches,
        ignored=matches.ignored | ignored,
        truth=matches.truth[truth],
        truth_images=matches.truth_images[truth],
        truth_labels=matches.truth_labels[truth],
    )


def _group(by: str, name: str, index: CocoIndex, part: Matches, protocol: Protocol) -> Group:
    names = chosen_names(index, protocol)
    once = np.ones((len(index), 1), dtype=np.int32)
    values = average_precision(part, once, names)
    wanted = np.bincount(part.truth_labels, minlength=max(names, default=0) + 1)[list(names)]  # [C]
    right = (part.objects >= 0) & ~part.ignored
    found = np.stack([np.bincount(part.labels[row], minlength=max(names, default=0) + 1)[list(names)] for row in right])
    recall = (found[:, wanted > 0] / wanted[wanted > 0]).mean() if wanted.any() else -1.0
    half = values[np.array(protocol.iou_thresholds) == FOUND]
    ap, ap50 = (float(np.nan_to_num(mean_of(some)[0], nan=-1.0)) for some in (values, half))
    return Group(by, name, len(part.truth), ap, ap50, float(recall))
