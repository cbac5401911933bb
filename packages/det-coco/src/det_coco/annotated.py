"""One picture with its objects, as they are before anything is done to them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from det_coco.annotations import CocoIndex
from det_coco.keypoints import Skeleton
from det_coco.polygons import Polygons


@dataclass(frozen=True, kw_only=True, eq=False)
class Annotated:
    """A picture of `h, w` pixels and its `N` objects with `J` keypoints each; pixels are read when they are needed.

    Attributes:
        height: h.
        width: w.
        read: gives the pixels, uint8 `[h, w, 3]` RGB.
        boxes: `[N, 4]` x1, y1, x2, y2 in pixels.
        labels: int64 `[N]`, contiguous classes 0 .. C - 1.
        crowd: bool `[N]`, which objects are crowd regions.
        masks: of the N objects.
        keypoints: float32 `[N, J, 3]` x, y, visibility.
        skeleton: what the keypoints are, or None.
    """

    height: int
    width: int
    read: Callable[[], np.ndarray]
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    masks: Polygons
    keypoints: np.ndarray
    skeleton: Skeleton | None = None

    @staticmethod
    def of(index: CocoIndex, position: int, rows: np.ndarray) -> "Annotated":
        """Take some objects of one image of a data set.

        Args:
            index: the data.
            position: the image.
            rows: int64 `[N]` instance rows, all of this image.
        """
        return Annotated(
            height=int(index.heights[position]),
            width=int(index.widths[position]),
            read=partial(index.image, position),
            boxes=index.boxes[rows],
            labels=index.labels[rows],
            crowd=index.crowd[rows],
            masks=index.masks[rows],
            keypoints=index.keypoints[rows],
            skeleton=index.skeleton,
        )

    @staticmethod
    def without_objects(pixels: np.ndarray) -> "Annotated":
        """A picture in memory, uint8 `[h, w, 3]` RGB, that shows no object."""
        return Annotated(
            height=pixels.shape[0],
            width=pixels.shape[1],
            read=lambda: pixels,
            boxes=np.zeros((0, 4), dtype=np.float32),
            labels=np.zeros(0, dtype=np.int64),
            crowd=np.zeros(0, dtype=bool),
            masks=Polygons.of_runs([]),
            keypoints=np.zeros((0, 0, 3), dtype=np.float32),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: np.ndarray) -> "Annotated":
        """The same picture with some of its objects: integers `[M]`, in their order."""
        return Annotated(
            height=self.height,
            width=self.width,
            read=self.read,
            boxes=self.boxes[rows],
            labels=self.labels[rows],
            crowd=self.crowd[rows],
            masks=self.masks[rows],
            keypoints=self.keypoints[rows],
            skeleton=self.skeleton,
        )

    @property
    def has_mask(self) -> np.ndarray:
        """Which objects have a mask that can be learnt: bool `[N]`; crowd regions have none."""
        return ~self.crowd & ((np.diff(self.masks.instance_polygons) > 0) | (np.diff(self.masks.instance_runs) > 0))
