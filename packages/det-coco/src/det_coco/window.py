"""A rectangle of a picture, or reaching beyond it, stretched to a size."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from det_coco.photometric import Distortion
from det_coco.transforms import with_points

# Mean colour of ImageNet in RGB, as YOLACT writes it (`data/config.py`, MEANS, in BGR there).
FILL = (123.68, 116.78, 103.94)


@dataclass(frozen=True, kw_only=True, eq=False)
class Window:
    """A rectangle of a picture, or reaching beyond it, stretched to a size: a drawn SSD augmentation.

    It leads from pictures of `h, w` pixels to `H, W`, which are `height` and `width`.

    Attributes:
        picture: (height, width) of the picture.
        left: first column in original pixels; negative where filling comes first.
        top: first row.
        right: the column behind the last one.
        bottom: the row behind the last one.
        height: new height in pixels.
        width: new width in pixels.
        flip: mirror left and right.
        distortion: change of colours.
        chosen: bool `[N]` objects whose centre is inside.
        min_side: boxes are dropped unless both sides are longer than this, in resized pixels.
    """

    picture: tuple[int, int]
    left: int
    top: int
    right: int
    bottom: int
    height: int
    width: int
    flip: bool
    distortion: Distortion
    chosen: np.ndarray = field(repr=False)
    min_side: float

    @property
    def scale_y(self) -> float:
        """Resized / original height."""
        return self.height / (self.bottom - self.top)

    @property
    def scale_x(self) -> float:
        """Resized / original width."""
        return self.width / (self.right - self.left)

    @property
    def matrix(self) -> np.ndarray:
        """From x, y, 1 in original pixels to resized ones: float64 `[3, 3]`."""
        matrix = np.diag([self.scale_x, self.scale_y, 1.0])
        matrix[:2, 2] = -self.left * self.scale_x, -self.top * self.scale_y
        if self.flip:
            matrix[0] = [-matrix[0, 0], 0, self.width - matrix[0, 2]]
        return matrix

    def keep(self, boxes: np.ndarray) -> np.ndarray:
        """Say which objects stay.

        Args:
            boxes: `[N, 4]` in original pixels, those that were given to `SSDAugmentation.draw`.

        Returns:
            bool `[N]`.
        """
        boxes = self.boxes(boxes)
        return self.chosen & ((boxes[:, 2:] - boxes[:, :2]) > self.min_side).all(axis=1)

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Carry boxes along and clip them to the window.

        Args:
            boxes: `[N, 4]` x1, y1, x2, y2 in original pixels.

        Returns:
            float32 `[N, 4]` in resized pixels.
        """
        low, high = np.array([self.left, self.top] * 2), np.array([self.right, self.bottom] * 2)
        return self.edges(np.clip(boxes.astype(np.float64), low, high))[:, [2, 1, 0, 3] if self.flip else [0, 1, 2, 3]]

    def edges(self, edges: np.ndarray, offset: float | None = None) -> np.ndarray:
        """Carry line segments along; what leaves the window stays, beyond the border of the image.

        Args:
            edges: `[E, 4]` x1, y1, x2, y2 in original pixels.
            offset: as for `Geometry.edges`; no coordinates are inclusive here.

        Returns:
            float32 `[E, 4]` in resized pixels, point order kept.
        """
        del offset
        out = edges.astype(np.float64) - np.array([self.left, self.top] * 2)
        out *= np.array([self.scale_x, self.scale_y] * 2)
        if self.flip:
            out[:, [0, 2]] = self.width - out[:, [0, 2]]
        return out.astype(np.float32)

    def keypoints(self, keypoints: np.ndarray, flip_indices: Sequence[int]) -> np.ndarray:
        """Carry keypoints along; those outside the window are no longer labelled.

        Args:
            keypoints: `[N, J, 3]` x, y in original pixels, and visibility.
            flip_indices: as in `Skeleton`.

        Returns:
            float32 `[N, J, 3]` x, y in resized pixels, and visibility; all 0 where a keypoint is not labelled.
        """
        x, y, visibility = np.moveaxis(keypoints, -1, 0)
        inside = (x >= self.left) & (x <= self.right) & (y >= self.top) & (y <= self.bottom)
        seen = np.stack((x, y, visibility * inside), axis=-1)
        points = self.edges(keypoints[..., [0, 1, 0, 1]].reshape(-1, 4))[:, :2]  # [N * J, 2]
        return with_points(seen, points, flip_indices if self.flip else None)

    def image(self, pixels: np.ndarray) -> Tensor:
        """Change the colours of a picture and cut the window out of it.

        Args:
            pixels: uint8 `[h, w, 3]` RGB.

        Returns:
            float32 `[3, H, W]` RGB, the mean colour beyond the picture; the values may leave 0..255.
        """
        seen = torch.from_numpy(pixels[self._seen]).permute(2, 0, 1).float()
        mean = torch.tensor(FILL)[:, None, None]
        # Zero is what is sampled beyond the picture.
        return self._sample(self.distortion.apply(seen.contiguous()) - mean).add_(mean)

    def bitmap(self, mask: np.ndarray) -> Tensor:
        """Cut the window out of a mask: bilinear, as OpenCV resizes bytes of 0 and 1.

        Args:
            mask: uint8 `[h, w]` of 0 and 1.

        Returns:
            bool `[H, W]`, false beyond the picture.
        """
        # A half is inside, as OpenCV rounds it, also where the position of the sample is a little off.
        return self._sample(torch.from_numpy(mask[self._seen]).float()[None])[0] >= 0.5 - 1 / 4096

    def _sample(self, planes: Tensor) -> Tensor:
        """Sample the seen part of planes `[C, h, w]` bilinearly, 0 beyond the picture: `[C, H, W]`."""
        return F.grid_sample(planes[None], self._grid, align_corners=False)[0]

    @cached_property
    def _seen(self) -> tuple[slice, slice]:
        """Rows and columns of the picture inside the window."""
        rows = slice(max(self.top, 0), min(self.bottom, self.picture[0]))
        return rows, slice(max(self.left, 0), min(self.right, self.picture[1]))

    @cached_property
    def _grid(self) -> Tensor:
        """Where in the seen part the samples lie: float32 `[1, H, W, 2]` x, y, -1 to 1 from edge to edge."""
        axes = []
        for seen, first, last, count in zip(
            self._seen, (self.top, self.left), (self.bottom, self.right), (self.height, self.width), strict=True
        ):
            size = last - first
            # Half a pixel at each end would lie beyond the window; it repeats the window's own border.
            place = ((torch.arange(count, dtype=torch.float64) + 0.5) * (size / count)).clamp(0.5, size - 0.5)
            axes.append(((place + first - seen.start) * (2 / (seen.stop - seen.start)) - 1).float())
        y, x = torch.meshgrid(axes[0], axes[1].flip(0) if self.flip else axes[1], indexing="ij")
        return torch.stack((x, y), dim=-1)[None]
