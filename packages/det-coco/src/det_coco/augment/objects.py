"""The objects of a layer as they are seen on the canvas, and how others hide them."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from det_coco.augment.outlines import bounds, box_edges, clip_edges, fill, inside, map_edges, map_points
from det_coco.augment.warp import Warp, pixel_window
from det_coco.mask_codec import closed_outlines
from det_coco.rle import bitmap_to_runs, runs_to_edges

if TYPE_CHECKING:
    from det_coco.augment.scene import Layer

MIN_SIDE = 1.0
"""Objects are left out unless both sides of what is seen of them are longer, in pixels of the canvas."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """What is seen of an object.

    Attributes:
        layer: what it belongs to.
        slot: its place among the objects of the layer's picture.
        box: float64 `[4]` x1, y1, x2, y2 on the canvas.
        keypoints: float32 `[J, 3]` x, y, visibility.
        rest: what is left of its mask where others hide a part of it: float64 `[E, 4]`.
    """

    layer: "Layer"
    slot: int
    box: np.ndarray
    keypoints: np.ndarray
    rest: np.ndarray | None = None

    @property
    def label(self) -> int:
        """Contiguous class."""
        return int(self.layer.picture.labels[self.slot])

    @property
    def crowd(self) -> bool:
        """Whether it is a crowd region."""
        return bool(self.layer.picture.crowd[self.slot])

    @cached_property
    def outlines(self) -> list[np.ndarray]:
        """Its mask: float64 `[E, 4]` for each polygon, without vertical edges, which never count; none for crowds."""
        if self.crowd:
            return []
        found = [self.rest] if self.rest is not None else _outlines(self.layer, self.slot)
        return [edges[edges[:, 0] != edges[:, 2]] for edges in found]

    def window(self, height: int, width: int) -> tuple[int, int, int, int] | None:
        """Columns and rows (left, top, right, bottom) of a canvas that hold its mask, or its box where it has none."""
        corners = np.concatenate(self.outlines).reshape(-1, 2) if self.outlines else self.box.reshape(2, 2)
        return pixel_window(corners, height, width)

    def bitmap(self, window: tuple[int, int, int, int]) -> np.ndarray:
        """Pixels of its mask in a window (left, top, right, bottom) of `h, w` pixels of the canvas: bool `[h, w]`."""
        left, top, right, bottom = window
        covered = np.zeros((bottom - top, right - left), dtype=bool)
        for edges in self.outlines:
            covered |= fill(edges, bottom - top, right - left, left, top)
        return covered

    def behind(self, cover: np.ndarray) -> "Seen | None":
        """What is left of it behind others (Ghiasi et al., "Simple Copy-Paste", 2021).

        A mask loses what is hidden, and the box follows it; keypoints become hidden ones. An object without a mask
        stays until its whole box is hidden, a crowd region always.

        Args:
            cover: bool `[H, W]`, the pixels of the canvas that others take.

        Returns:
            the object; None where nothing is left.
        """
        window = None if self.crowd else self.window(*cover.shape)
        if window is None:
            return self
        left, top, right, bottom = window
        hidden = cover[top:bottom, left:right]
        if not hidden.any():
            return self
        if not self.outlines:
            return None if hidden.all() else self
        mask = self.bitmap(window)
        seen = mask & ~hidden
        if seen.sum() == mask.sum():
            return self
        rest = runs_to_edges(bitmap_to_runs(seen), bottom - top) + np.array([left, top] * 2, dtype=np.float64)
        box = bounds(rest)
        if not _large_enough(box):
            return None
        return replace(self, rest=rest, box=box, keypoints=_hidden(self.keypoints, cover))


def seen_objects(layer: "Layer") -> list[Seen]:
    """The objects of a layer of which something is seen.

    Boxes follow their corners where the map keeps them upright. Else they are those of what is seen of the mask, or, of
    an object without one, of its box.

    Args:
        layer: the layer.

    Returns:
        the objects, in the order of the picture.
    """
    picture, view = layer.picture, layer.view
    if not len(picture):
        return []
    flip = picture.skeleton.flip_indices if picture.skeleton else range(picture.keypoints.shape[1])
    if view is None or not isinstance(view, Warp):
        boxes = picture.boxes if view is None else view.boxes(picture.boxes)
        keypoints = picture.keypoints if view is None else view.keypoints(picture.keypoints, flip)
        kept = np.ones(len(picture), dtype=bool)
    else:
        boxes = _boxes(layer)
        keypoints = view.keypoints(picture.keypoints, flip)
        gone = ~inside(keypoints[..., :2].reshape(-1, 2), layer.region).reshape(keypoints.shape[:2])
        keypoints[gone] = 0
        kept = np.array([_large_enough(box) for box in boxes])
    return [
        Seen(layer=layer, slot=int(slot), box=boxes[slot].astype(np.float64), keypoints=keypoints[slot])
        for slot in np.flatnonzero(kept)
    ]


def _boxes(layer: "Layer") -> np.ndarray:
    """Boxes `[N, 4]` of what is seen of the objects of a warped layer; 0 where nothing is."""
    picture, region, matrix = layer.picture, layer.region, layer.matrix
    if not len(region):
        return np.zeros((len(picture), 4))
    low, high = region.min(axis=0), region.max(axis=0)
    if Warp(matrix=matrix).upright and ((region == low) | (region == high)).all():
        corners = map_points(matrix, picture.boxes.reshape(-1, 2, 2).astype(np.float64))  # [N, 2, 2]
        corners = np.sort(corners, axis=1).clip(low, high)
        return corners.reshape(-1, 4)
    masked = picture.has_mask
    boxes = np.zeros((len(picture), 4))
    for slot, box in enumerate(picture.boxes):
        outlines = closed_outlines(picture, slot) if masked[slot] else [box_edges(box)]
        parts = [clip_edges(map_edges(matrix, edges), region) for edges in outlines]
        boxes[slot] = bounds(np.concatenate(parts))
    return boxes


def _outlines(layer: "Layer", slot: int) -> list[np.ndarray]:
    """The mask of an object on the canvas, one outline for each polygon, cut to the region of a warped layer."""
    outlines = closed_outlines(layer.picture, slot)
    if not isinstance(layer.view, Warp):
        return [edges if layer.view is None else layer.view.edges(edges, offset=0.0) for edges in outlines]
    found = []
    for edges in outlines:
        mapped = map_edges(layer.matrix, edges)
        whole = inside(mapped.reshape(-1, 2), layer.region).all()
        found.append(mapped if whole else clip_edges(mapped, layer.region))
    return [edges for edges in found if len(edges)]


def _large_enough(box: np.ndarray) -> bool:
    return bool((box[2:] - box[:2] > MIN_SIDE).all())


def _hidden(keypoints: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """The keypoints `[J, 3]`, of which those under a cover are labelled as hidden."""
    out = keypoints.copy()
    x, y = np.floor(keypoints[:, :2]).astype(int).T
    on = (x >= 0) & (y >= 0) & (x < cover.shape[1]) & (y < cover.shape[0])
    under = on.copy()
    under[on] = cover[y[on], x[on]]
    out[under & (keypoints[:, 2] == 2), 2] = 1
    return out
