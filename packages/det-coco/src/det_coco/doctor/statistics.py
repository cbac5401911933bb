"""What a split holds, in numbers."""

from dataclasses import dataclass, field

import numpy as np

from det_coco.annotations import CocoIndex
from det_coco.doctor.boxes import pairwise_iou

SIZES = (32.0**2, 96.0**2)
"""Areas in square pixels that part small, medium and large objects in COCO."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Statistics:
    """Numbers of one split: `I` images, `N` objects that are no crowd, `C` classes.

    Attributes:
        images: I.
        empty: images without an object.
        objects: N.
        crowd: crowd regions.
        masks: objects with a mask.
        counts: int64 `[C]` objects of each class.
        by_size: shares of small, medium and large objects, as COCO has them.
        sides: float64 `[N]` square roots of the areas of the boxes in pixels.
        aspects: float64 `[N]` width by height of the boxes.
        per_image: int64 `[I]` objects an image.
        widths: int32 `[I]` of the images.
        heights: int32 `[I]` of the images.
        crowding: share of the objects whose box overlaps another of the image by an IoU of more than 0.5.
        class_names: C names.
    """

    images: int
    empty: int
    objects: int
    crowd: int
    masks: int
    counts: np.ndarray = field(repr=False)
    by_size: tuple[float, float, float]
    sides: np.ndarray = field(repr=False)
    aspects: np.ndarray = field(repr=False)
    per_image: np.ndarray = field(repr=False)
    widths: np.ndarray = field(repr=False)
    heights: np.ndarray = field(repr=False)
    crowding: float
    class_names: tuple[str, ...] = field(repr=False)


def measure(index: CocoIndex) -> Statistics:
    """Measure a split."""
    free = ~index.crowd
    sides = index.boxes[free, 2:] - index.boxes[free, :2]
    image = np.repeat(np.arange(len(index)), np.diff(index.image_instances))[free]
    per_image = np.bincount(image, minlength=len(index))
    areas = index.areas[free]
    small, large = (areas < SIZES[0]).mean() if len(areas) else 0.0, (areas >= SIZES[1]).mean() if len(areas) else 0.0
    return Statistics(
        images=len(index),
        empty=int((per_image == 0).sum()),
        objects=int(free.sum()),
        crowd=int((~free).sum()),
        masks=int((index.polygon_counts[free] > 0).sum()),
        counts=np.bincount(index.labels[free], minlength=index.num_classes),
        by_size=(float(small), float(1 - small - large) if len(areas) else 0.0, float(large)),
        sides=np.sqrt(sides.prod(axis=1, dtype=np.float64)),
        aspects=sides[:, 0].astype(np.float64) / sides[:, 1],
        per_image=per_image,
        widths=index.widths,
        heights=index.heights,
        crowding=_crowding(index),
        class_names=index.class_names,
    )


def _crowding(index: CocoIndex) -> float:
    crowded, objects = 0, 0
    for position in range(len(index)):
        rows = index.instances(position)
        boxes = index.boxes[rows][~index.crowd[rows]]
        objects += len(boxes)
        if len(boxes) > 1:
            iou = pairwise_iou(boxes.astype(np.float64))
            np.fill_diagonal(iou, 0)
            crowded += int((iou.max(axis=1) > 0.5).sum())
    return crowded / objects if objects else 0.0
