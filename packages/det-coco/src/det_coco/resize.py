"""The size that an image is resized to, and its pixels there: each reference system's rule."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

SizeRule = Literal["detectron2", "maskrcnn_benchmark", "torchvision", "yolact"]
_RULES = ("detectron2", "maskrcnn_benchmark", "torchvision", "yolact")


@dataclass(frozen=True, kw_only=True, slots=True)
class Resize:
    """Resize of an image: its shorter side to a length, unless the longer side would pass a limit.

    Attributes:
        shortest: lengths of the shorter side in pixels; training draws one per image, evaluation takes the last.
        longest: limit of the longer side in pixels.
        rule: whose rounding. detectron2 rounds both sides to the nearest; maskrcnn-benchmark rounds the shorter side
            at the limit and truncates the longer; torchvision truncates both and resizes without antialiasing; yolact
            makes both sides the shorter length whatever the aspect, without antialiasing or rounding of the pixels.
    """

    shortest: tuple[int, ...] = (800,)
    longest: int = 1333
    rule: SizeRule = "detectron2"

    def __post_init__(self) -> None:
        if not self.shortest or min(self.shortest) < 1:
            raise ValueError(f"shortest must hold one or more lengths of at least 1 pixel, got {self.shortest}.")
        if self.longest < 1:
            raise ValueError(f"longest must be at least 1 pixel, got {self.longest}.")
        if self.rule not in _RULES:
            raise ValueError(f"rule must be one of {', '.join(_RULES)}, got {self.rule!r}.")

    def output_size(self, height: int, width: int, shortest: int | None = None) -> tuple[int, int]:
        """Compute the size that an image is resized to.

        Args:
            height: original height in pixels.
            width: original width in pixels.
            shortest: length of the shorter side in pixels, the last of `self.shortest` by default.

        Returns:
            (height, width), at least 1 each. Sources: detectron2 `ResizeShortestEdge.get_output_shape`,
            maskrcnn-benchmark `Resize.get_size`, torchvision `_resize_image_and_masks`.
        """
        shortest = self.shortest[-1] if shortest is None else shortest
        if self.rule == "yolact":
            return shortest, shortest
        if self.rule == "detectron2":
            size = _detectron2_size(height, width, shortest, self.longest)
        elif self.rule == "maskrcnn_benchmark":
            size = _maskrcnn_benchmark_size(height, width, shortest, self.longest)
        else:
            scale = min(shortest / min(height, width), self.longest / max(height, width))
            size = int(height * scale), int(width * scale)
        return max(size[0], 1), max(size[1], 1)

    @property
    def dtype(self) -> torch.dtype:
        """Type of resized pixels: float32 under yolact's rule, which does not round them, else uint8."""
        return torch.float32 if self.rule == "yolact" else torch.uint8

    def apply(self, image: np.ndarray, height: int, width: int) -> torch.Tensor:
        """Resize a picture bilinearly.

        Pixels are Pillow's within one level of 255; under the rules of torchvision and yolact they are those of
        `torch.nn.functional.interpolate` without antialiasing.

        Args:
            image: uint8 `[h, w, 3]` RGB.
            height: H, new height in pixels.
            width: W, new width in pixels.

        Returns:
            `[3, H, W]` of `dtype`, 0..255.
        """
        tensor = torch.from_numpy(image).permute(2, 0, 1).to(self.dtype)
        if image.shape[:2] == (height, width):
            return tensor
        antialias = self.rule not in ("torchvision", "yolact")
        return F.interpolate(tensor[None], (height, width), mode="bilinear", align_corners=False, antialias=antialias)[
            0
        ]


def _detectron2_size(height: int, width: int, shortest: int, longest: int) -> tuple[int, int]:
    scale = shortest * 1.0 / min(height, width)
    new_height, new_width = (shortest, scale * width) if height < width else (scale * height, shortest)
    if max(new_height, new_width) > longest:
        scale = longest * 1.0 / max(new_height, new_width)
        new_height, new_width = new_height * scale, new_width * scale
    return int(new_height + 0.5), int(new_width + 0.5)


def _maskrcnn_benchmark_size(height: int, width: int, shortest: int, longest: int) -> tuple[int, int]:
    small, large = float(min(height, width)), float(max(height, width))
    if large / small * shortest > longest:
        shortest = round(longest * small / large)
    if (width <= height and width == shortest) or (height <= width and height == shortest):
        return height, width
    if width < height:
        return int(shortest * height / width), shortest
    return shortest, int(shortest * width / height)
