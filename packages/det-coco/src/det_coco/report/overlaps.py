"""Overlaps of detections and objects of all classes, where there are any to speak of."""

from dataclasses import dataclass

import numpy as np

from det_coco._coco_api import coco_mask
from det_coco._columns import Columns

NEAR = 0.1
"""The IoU below which a detection has nothing to do with an object."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """Detections and objects of one image that overlap by 0.1 or more.

    Attributes:
        count: D, number of detections.
        detections: int64 `[P]`, 0 .. D - 1.
        objects: int64 `[P]`, places in the columns.
        ious: float64 `[P]`.
    """

    count: int
    detections: np.ndarray
    objects: np.ndarray
    ious: np.ndarray

    def best(self, chosen: np.ndarray) -> np.ndarray:
        """The object that each detection overlaps most, and the IoU, among chosen pairs.

        Args:
            chosen: bool `[P]`.

        Returns:
            float64 `[2, D]` place of the object, the first of equal ones, and IoU; -1 and 0 where there is none.
        """
        detections, objects, ious = self.detections[chosen], self.objects[chosen], self.ious[chosen]
        order = np.lexsort((objects, -ious, detections))
        first = order[np.flatnonzero(np.diff(detections[order], prepend=-1))]
        found = np.repeat([[-1.0], [0.0]], self.count, axis=1)
        found[:, detections[first]] = objects[first], ious[first]
        return found


def overlapping(columns: Columns, number: np.ndarray) -> Pairs:
    """Compare the detections and the objects of each image, whatever their classes.

    Args:
        columns: of boxes or masks; crowds are left out.
        number: int64 `[K]` what each detection is called, from 0; -1: it is left out.
    """
    found = np.flatnonzero(number >= 0)
    found = found[np.argsort(columns.found_images[found], kind="stable")]
    truth = np.flatnonzero(~columns.crowd & np.isin(columns.truth_labels, columns.labels))
    images = columns.images
    bounds = [
        np.searchsorted(values, (images, images + 1)).T
        for values in (columns.found_images[found], columns.truth_images[truth])
    ]
    masks = columns.iou_type != "bbox"
    height_width = columns.sizes.tolist()
    parts = []
    for image, (first, last), (start, stop) in zip(images.tolist(), *bounds, strict=True):
        k, n = found[first:last], truth[start:stop]
        if not (len(k) and len(n)):
            continue
        if masks:
            size = height_width[image]
            ious = coco_mask.iou(
                [columns.found_masks[i] for i in k], [_code(columns.truth_masks[i], size) for i in n], [0] * len(n)
            )
        else:
            ious = coco_mask.iou(columns.found_boxes[k], columns.truth_boxes[n], [0] * len(n))
        rows, places = np.nonzero(ious >= NEAR)
        parts.append((number[k[rows]], n[places], ious[rows, places]))
    none = (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0))
    detections, objects, values = (np.concatenate(column) for column in zip(none, *parts, strict=True))
    return Pairs(count=int(number.max(initial=-1)) + 1, detections=detections, objects=objects, ious=values)


def _code(mask: object, size: list[int]) -> object:
    """A run-length code of a mask given as polygons."""
    return coco_mask.merge(coco_mask.frPyObjects(mask, *size)) if isinstance(mask, list) else mask
