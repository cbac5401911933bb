"""A picture seen through a projective map: pixels are sampled once, whatever the map was composed of."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from det_coco.augment.outlines import map_edges, map_points
from det_coco.transforms import with_points

# Pictures are sampled at most this finely in a direction when they are made smaller.
_FINEST = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Warp:
    """A map from pictures of `h, w` pixels to a canvas.

    Attributes:
        matrix: float64 `[3, 3]`, from x, y, 1 in the picture to x, y, 1 on the canvas, times a factor.
    """

    matrix: np.ndarray

    @cached_property
    def upright(self) -> bool:
        """Whether it only scales, mirrors and moves, so that boxes stay boxes."""
        m = self.matrix
        return not (m[0, 1] or m[1, 0] or m[2, 0] or m[2, 1])

    @cached_property
    def mirrors(self) -> bool:
        """Whether left becomes right."""
        return bool(np.linalg.det(self.matrix) < 0)

    @property
    def scale_y(self) -> float:
        """Length on the canvas of a vertical pixel of the picture."""
        return float(np.hypot(*self.matrix[:2, 1]) / abs(self.matrix[2, 2]))

    @property
    def scale_x(self) -> float:
        """Length on the canvas of a horizontal pixel of the picture."""
        return float(np.hypot(*self.matrix[:2, 0]) / abs(self.matrix[2, 2]))

    def edges(self, edges: np.ndarray, offset: float | None = None) -> np.ndarray:
        """Carry a closed outline along.

        Args:
            edges: `[E, 4]` x1, y1, x2, y2 in the picture.
            offset: as for `Geometry.edges`; no coordinates are inclusive here.

        Returns:
            float64 `[E, 4]` on the canvas.
        """
        del offset
        return map_edges(self.matrix, edges)

    def keypoints(self, keypoints: np.ndarray, flip_indices: Sequence[int]) -> np.ndarray:
        """Carry keypoints along.

        Args:
            keypoints: `[N, J, 3]` x, y in the picture, and visibility.
            flip_indices: as in `Skeleton`.

        Returns:
            float32 `[N, J, 3]` x, y on the canvas, and visibility; all 0 where a keypoint is not labelled.
        """
        points = map_points(self.matrix, keypoints[..., :2].reshape(-1, 2).astype(np.float64))
        return with_points(keypoints, points, flip_indices if self.mirrors else None)

    def sample(
        self, pixels: np.ndarray, window: tuple[int, int, int, int], filling: tuple[int, int, int]
    ) -> np.ndarray:
        """Sample the pixels of a window of the canvas.

        Args:
            pixels: uint8 `[h, w, 3]`.
            window: columns and rows (left, top, right, bottom) of the canvas.
            filling: colour beyond the picture; an upright map repeats the picture's border there.

        Returns:
            uint8 `[h, w, 3]`, as many rows and columns as the window has.
        """
        return self._scaled(pixels, window) if self.upright else self._turned(pixels, window, filling)

    def _scaled(self, pixels: np.ndarray, window: tuple[int, int, int, int]) -> np.ndarray:
        """Pixels of a window `[bottom - top, right - left, 3]` of an upright map, with Pillow's antialiased filter."""
        inverse = np.linalg.inv(self.matrix)
        inverse /= inverse[2, 2]
        corners = map_points(inverse, np.array(window, dtype=np.float64).reshape(2, 2))  # [2, 2]
        (x1, y1), (x2, y2) = corners.min(axis=0), corners.max(axis=0)
        # Half of a border pixel may lie beyond the picture, which then repeats its own border.
        height, width = pixels.shape[:2]
        margin = math.ceil(max(0.0, -x1, -y1, x2 - width, y2 - height) - 1e-6)
        if margin:
            pixels = np.pad(pixels, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
        height, width = pixels.shape[:2]
        box = np.clip(np.array([x1, y1, x2, y2]) + margin, 0, [width, height, width, height])
        size = (window[2] - window[0], window[3] - window[1])
        scaled = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR, tuple(box.tolist()))
        steps = np.sign(np.diag(self.matrix)[:2] / self.matrix[2, 2]).astype(int)
        return np.asarray(scaled)[:: steps[1], :: steps[0]]

    def _turned(
        self, pixels: np.ndarray, window: tuple[int, int, int, int], filling: tuple[int, int, int]
    ) -> np.ndarray:
        """Pixels of a window of any map; each is the mean of several samples where the picture shrinks."""
        left, top, right, bottom = window
        middle = np.array([(left + right) / 2, (top + bottom) / 2])
        finer = min(max(1, math.ceil(1 / self._magnification(middle) - 0.25)), _FINEST)
        to_canvas = np.array([[1 / finer, 0, left], [0, 1 / finer, top], [0, 0, 1]])
        inverse = np.linalg.inv(self.matrix) @ to_canvas
        inverse /= inverse[2, 2]
        size = ((right - left) * finer, (bottom - top) * finer)
        sampled = Image.fromarray(pixels).transform(
            size,
            Image.Transform.PERSPECTIVE,
            inverse.reshape(-1)[:8].tolist(),
            Image.Resampling.BILINEAR,
            fillcolor=filling,
        )
        return np.asarray(sampled.reduce(finer) if finer > 1 else sampled)

    def _magnification(self, point: np.ndarray) -> float:
        """Length on the canvas of a step of one pixel in the picture, around a point `[2]` of the canvas."""
        inverse = np.linalg.inv(self.matrix)
        steps = np.array([[0.0, 0], [1, 0], [0, 1]]) + point
        at, right, below = map_points(inverse, steps)
        area = abs(np.linalg.det(np.stack((right - at, below - at))))  # of a pixel of the canvas, in the picture
        return float(1 / max(area, 1e-12) ** 0.5)


def pixel_window(region: np.ndarray, height: int, width: int) -> tuple[int, int, int, int] | None:
    """Columns and rows (left, top, right, bottom) of the pixels whose centre may lie in a region `[K, 2]`, if any."""
    if not len(region):
        return None
    low, high = np.ceil(region.min(axis=0) - 0.5 - 1e-6), np.ceil(region.max(axis=0) - 0.5 - 1e-6)
    left, top = np.clip(low.astype(int), 0, (width, height)).tolist()
    right, bottom = np.clip(high.astype(int), 0, (width, height)).tolist()
    return (left, top, right, bottom) if right > left and bottom > top else None
