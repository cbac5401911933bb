"""SSD's augmentation as YOLACT does it: colours, a smaller picture on a larger canvas, a random window, a mirror."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from det_coco.photometric import Distortion
from det_coco.transforms import Resize, with_points

# Mean colour of ImageNet in RGB, as YOLACT writes it (`data/config.py`, MEANS, in BGR there).
FILL = (123.68, 116.78, 103.94)
# None: the whole canvas; else the smallest overlap with an object, which YOLACT never enforces.
_OVERLAPS = (None, 0.1, 0.3, 0.7, 0.9, 0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class SSDAugmentation:
    """YOLACT's `SSDAugmentation` (`utils/augmentations.py`), part by part.

    The size is that of `resize`, whose rule must be yolact's, so that every batch has one shape.

    Attributes:
        resize: the size.
        photometric: change brightness, contrast, saturation and hue, see `Distortion`.
        expand: with probability one half, place the picture on a canvas of the mean colour, 1 to 4 times as large.
        crop: cut a window, of 0.3 to 1 of each side and an aspect between 1/2 and 2, that holds the centre of at least
            one object; objects whose centre is outside are dropped.
        flip: probability of a horizontal flip.
        enforce_overlap: take a window only if it overlaps an object by as much (IoU) as was drawn for it. YOLACT draws
            that number and then, by a slip, accepts every window; its author found that the slip helps.
        min_side: boxes are dropped unless both sides are larger, in pixels of the resized image. (YOLACT means 4 / 550
            of the image, but compares pixels.)
    """

    resize: Resize = field(default_factory=lambda: Resize(shortest=(550,), longest=550, rule="yolact"))
    photometric: bool = True
    expand: bool = True
    crop: bool = True
    flip: float = 0.5
    enforce_overlap: bool = False
    min_side: float = 4 / 550

    def __post_init__(self) -> None:
        if self.resize.rule != "yolact":
            raise ValueError(f"the rule of resize must be yolact, got {self.resize.rule!r}")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip must be a probability between 0 and 1, got {self.flip}")

    @property
    def legacy(self) -> bool:
        """No legacy coordinates in YOLACT."""
        return False

    def draw(
        self, height: int, width: int, random: np.random.Generator | None, boxes: np.ndarray, crowd: np.ndarray
    ) -> "Window":
        """Draw what is done to one image.

        Args:
            height: original height.
            width: original width.
            random: source of randomness; None leaves the picture whole and unchanged.
            boxes: `[N, 4]` x1, y1, x2, y2 of its objects in original pixels.
            crowd: bool `[N]`.

        Returns:
            the window and what happens to it.
        """
        out_height, out_width = self.resize.output_size(height, width)
        left, top, right, bottom = 0, 0, width, height
        distortion, flip, keep = Distortion(), False, np.ones(len(boxes), dtype=bool)
        if random is not None:
            if self.photometric:
                distortion = Distortion.draw(random)
            if self.expand and random.random() < 0.5:
                left, top, right, bottom = _canvas(height, width, random)
            if self.crop:
                origin = np.array([left, top, left, top])
                window, keep = self._crop(bottom - top, right - left, random, boxes - origin, crowd)
                left, top, right, bottom = (int(v) for v in window + origin)
            flip = bool(random.random() < self.flip)
        return Window(
            picture=(height, width),
            left=left,
            top=top,
            right=right,
            bottom=bottom,
            height=out_height,
            width=out_width,
            flip=flip,
            distortion=distortion,
            chosen=keep,
            min_side=self.min_side,
        )

    def _crop(
        self, height: int, width: int, random: np.random.Generator, boxes: np.ndarray, crowd: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw a window of a canvas and say which boxes stay."""
        whole = np.array([0, 0, width, height]), np.ones(len(boxes), dtype=bool)
        if crowd.all():
            # No window can hold an object; YOLACT draws until it draws none.
            return whole
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        while True:
            overlap = _OVERLAPS[int(random.integers(len(_OVERLAPS)))]
            if overlap is None:
                return whole
            for _ in range(50):
                w, h = random.uniform(0.3 * width, width), random.uniform(0.3 * height, height)
                if not 0.5 <= h / w <= 2:
                    continue
                x, y = random.uniform(0, width - w), random.uniform(0, height - h)
                window = np.array([int(x), int(y), int(x + w), int(y + h)])
                if self.enforce_overlap and _iou(boxes[~crowd], window).max() < overlap:
                    continue
                keep = np.all((centres > window[:2]) & (centres < window[2:]), axis=1)
                if (keep & ~crowd).any():
                    return window, keep


@dataclass(frozen=True, kw_only=True, eq=False)
class Window:
    """A rectangle of a picture, or reaching beyond it, stretched to a size: a drawn SSD augmentation.

    Attributes:
        picture: (height, width) of the picture.
        left: first column in original pixels; negative where filling comes first.
        top: first row.
        right: behind the last column.
        bottom: behind the last row.
        height: new height in pixels.
        width: new width in pixels.
        flip: mirror left and right.
        distortion: change of colours.
        chosen: bool `[N]` objects whose centre is inside.
        min_side: boxes that are not larger than this are dropped.
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
        """New height of an original pixel."""
        return self.height / (self.bottom - self.top)

    @property
    def scale_x(self) -> float:
        """New width of an original pixel."""
        return self.width / (self.right - self.left)

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
            keypoints: `[N, K, 3]` x, y in original pixels, and visibility.
            flip_indices: as in `Skeleton`.

        Returns:
            float32 `[N, K, 3]` x, y in resized pixels, and visibility; all 0 where a keypoint is not labelled.
        """
        x, y, visibility = np.moveaxis(keypoints, -1, 0)
        inside = (x >= self.left) & (x <= self.right) & (y >= self.top) & (y <= self.bottom)
        seen = np.stack((x, y, visibility * inside), axis=-1)
        points = self.edges(keypoints[..., [0, 1, 0, 1]].reshape(-1, 4))[:, :2]  # [N * K, 2]
        return with_points(seen, points, flip_indices if self.flip else None)

    def image(self, pixels: np.ndarray) -> Tensor:
        """Change the colours of a picture and cut the window out of it.

        Args:
            pixels: uint8 `[h, w, 3]` RGB.

        Returns:
            float32 `[3, height, width]`, the mean colour beyond the picture.
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
            bool `[height, width]`, nothing beyond the picture.
        """
        # A half is inside, as OpenCV rounds it, also where the position of the sample is a little off.
        return self._sample(torch.from_numpy(mask[self._seen]).float()[None])[0] >= 0.5 - 1 / 4096

    def _sample(self, planes: Tensor) -> Tensor:
        """Sample the seen part of planes `[C, h, w]` bilinearly, 0 beyond the picture: `[C, height, width]`."""
        return F.grid_sample(planes[None], self._grid, align_corners=False)[0]

    @cached_property
    def _seen(self) -> tuple[slice, slice]:
        """Rows and columns of the picture inside the window."""
        rows = slice(max(self.top, 0), min(self.bottom, self.picture[0]))
        return rows, slice(max(self.left, 0), min(self.right, self.picture[1]))

    @cached_property
    def _grid(self) -> Tensor:
        """Where in the seen part the samples lie: float32 `[1, height, width, 2]` x, y, -1 to 1 from edge to edge."""
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


def _canvas(height: int, width: int, random: np.random.Generator) -> tuple[int, int, int, int]:
    """Draw a canvas around a picture: (left, top, right, bottom) in the picture's coordinates."""
    ratio = random.uniform(1, 4)
    left = int(random.uniform(0, width * ratio - width))
    top = int(random.uniform(0, height * ratio - height))
    return -left, -top, int(width * ratio) - left, int(height * ratio) - top


def _iou(boxes: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Overlap of boxes `[N, 4]` with one window `[4]`: `[N]`."""
    sides = np.clip(np.minimum(boxes[:, 2:], window[2:]) - np.maximum(boxes[:, :2], window[:2]), 0, None)
    both = sides.prod(axis=1)
    return both / ((boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (window[2:] - window[:2]).prod() - both)
