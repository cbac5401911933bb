"""The size that an image is resized to, and its pixels there: each reference system's rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    import numpy as np
    import torch

SizeRule = Literal["detectron2", "maskrcnn_benchmark", "mmdetection", "torchvision", "yolact"]
_RULES = get_args(SizeRule)
_FLOATING = ("torchvision", "yolact")


@dataclass(frozen=True, kw_only=True, slots=True)
class Resize:
    """Resize of an image: its shorter side to a length, unless the longer side would pass a limit.

    Attributes:
        shortest: lengths of the shorter side in pixels; training draws one per image, evaluation takes the last.
        longest: limit of the longer side in pixels.
        rule: whose sizes and pixels. detectron2 and mmdetection round both sides to the nearest; maskrcnn-benchmark
            rounds the shorter side at the limit and truncates the longer; torchvision truncates both; yolact makes both
            sides the shorter length whatever the aspect. Pixels are those of Pillow (detectron2, maskrcnn-benchmark),
            of OpenCV (mmdetection) or, not rounded, of torch without antialiasing (torchvision, yolact).
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
            maskrcnn-benchmark `Resize.get_size`, mmcv `rescale_size`, torchvision `_resize_image_and_masks`.
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
            half = 0.5 if self.rule == "mmdetection" else 0.0
            size = int(height * scale + half), int(width * scale + half)
        return max(size[0], 1), max(size[1], 1)

    def output_sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Compute the size that an image is resized to at each length of `shortest`: see `output_size`."""
        return [self.output_size(height, width, shortest) for shortest in self.shortest]

    @property
    def dtype(self) -> torch.dtype:
        """Type of resized pixels: float32 under the rules of torchvision and yolact, which do not round, else uint8."""
        import torch

        return torch.float32 if self.rule in _FLOATING else torch.uint8

    def apply(self, image: np.ndarray, height: int, width: int) -> torch.Tensor:
        """Resize a picture bilinearly, to the very pixels that the system of the rule gets.

        Args:
            image: uint8 `[h, w, 3]` RGB.
            height: H, new height in pixels.
            width: W, new width in pixels.

        Returns:
            `[3, H, W]` of `dtype`, 0..255.
        """
        from det_coco.interpolation import resize_as_opencv, resize_as_pillow, resize_as_torch

        if self.rule in _FLOATING:
            return resize_as_torch(image, height, width)
        return (resize_as_opencv if self.rule == "mmdetection" else resize_as_pillow)(image, height, width)


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
