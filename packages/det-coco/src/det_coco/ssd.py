"""SSD's augmentation as YOLACT does it: colours, a smaller picture on a larger canvas, a random window, a mirror."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from det_coco.photometric import Distortion
from det_coco.resize import Resize
from det_coco.window import Window

if TYPE_CHECKING:
    from det_coco.augment.scene import Scene

# None: the whole canvas; else the smallest overlap with an object, which YOLACT never enforces.
_OVERLAPS = (None, 0.1, 0.3, 0.7, 0.9, 0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class SSDAugmentation:
    """SSD's augmentation, part by part as in YOLACT (`SSDAugmentation` in `utils/augmentations.py`).

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
            raise ValueError(f"the rule of resize must be yolact, got {self.resize.rule!r}.")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip must be a probability between 0 and 1, got {self.flip}.")

    @property
    def legacy(self) -> bool:
        """Whether pixel coordinates are inclusive: never in YOLACT."""
        return False

    @property
    def dtype(self) -> torch.dtype:
        """Type of the pixels."""
        return self.resize.dtype

    def output_sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """The one size of all pictures."""
        return self.resize.output_sizes(height, width)

    def __call__(self, scene: "Scene", random: np.random.Generator | None) -> "Scene":
        """Draw what is done to a picture, see `draw`."""
        boxes, crowd = scene.boxes()
        window = self.draw(scene.height, scene.width, random, boxes, crowd)
        seen = scene.seen(window)
        return seen if scene.untouched else seen.changed(window.distortion.pixels)

    def draw(
        self, height: int, width: int, random: np.random.Generator | None, boxes: np.ndarray, crowd: np.ndarray
    ) -> "Window":
        """Draw what is done to one image.

        Args:
            height: original height in pixels.
            width: original width in pixels.
            random: source of randomness; None leaves the picture whole and unchanged.
            boxes: `[N, 4]` x1, y1, x2, y2 of its objects in original pixels.
            crowd: bool `[N]`, which of them are crowd regions.

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
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2  # [N, 2]
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


def _canvas(height: int, width: int, random: np.random.Generator) -> tuple[int, int, int, int]:
    """Draw a canvas around a picture: (left, top, right, bottom) in the picture's coordinates."""
    ratio = random.uniform(1, 4)
    left = int(random.uniform(0, width * ratio - width))
    top = int(random.uniform(0, height * ratio - height))
    return -left, -top, int(width * ratio) - left, int(height * ratio) - top


def _iou(boxes: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Overlap of boxes `[N, 4]` with one window `[4]`: `[N]`."""
    sides = np.clip(np.minimum(boxes[:, 2:], window[2:]) - np.maximum(boxes[:, :2], window[:2]), 0, None)  # [N, 2]
    both = sides.prod(axis=1)
    return both / ((boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (window[2:] - window[:2]).prod() - both)
