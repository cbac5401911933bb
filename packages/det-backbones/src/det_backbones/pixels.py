"""How pixels become the input of a network: one class, and the values of every published system."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelConfig:
    """How RGB pixels of 0..255 become the network's input: ``(pixel / scale - mean) / std``, then zero in the padding.

    The defaults are detectron2's, :data:`CAFFE2_PIXELS`. Systems that divide by 255 and systems that do not differ in
    the last bits of float32, so that both spellings exist.

    Attributes:
        order: Channel order the weights expect, "rgb" or "bgr".
        scale: Divisor applied first: 1 or 255.
        mean: Per channel, in `order` and in units after `scale`.
        std: Per channel, in `order` and in units after `scale`.

    Raises:
        ValueError: `order` is neither of the two, or `scale` or a value of `std` is not positive.
    """

    order: Literal["rgb", "bgr"] = "bgr"
    scale: float = 1.0
    mean: tuple[float, float, float] = (103.53, 116.28, 123.675)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if self.order not in ("rgb", "bgr"):
            raise ValueError(f"pixels.order must be 'rgb' or 'bgr', got {self.order!r}")
        if not self.scale > 0:
            raise ValueError(f"pixels.scale must be positive, got {self.scale!r}")
        if not all(value > 0 for value in self.std):
            raise ValueError(f"pixels.std must be positive in every channel, got {self.std!r}")


CAFFE2_PIXELS = PixelConfig()
"""detectron2's, for MSRA's networks that came through Caffe2 (and mmdetection's "caffe" style)."""

DETECTRON2_RESNEXT_PIXELS = PixelConfig(std=(57.375, 57.12, 58.395))
"""detectron2's for ResNeXt-101-32x8d (configs/*_X_101_32x8d_FPN_3x.yaml)."""

MASKRCNN_BENCHMARK_PIXELS = PixelConfig(mean=(102.9801, 115.9465, 122.7717))
"""maskrcnn-benchmark's and Detectron's, for the same networks."""

TORCHVISION_PIXELS = PixelConfig(order="rgb", scale=255.0, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""torchvision's, and timm's default."""

MMDETECTION_PIXELS = PixelConfig(order="rgb", mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
"""mmdetection's, which is torchvision's in units of 0..255."""

YOLACT_PIXELS = PixelConfig(order="rgb", mean=(123.68, 116.78, 103.94), std=(58.40, 57.12, 57.38))
"""YOLACT's, for its ResNets."""

DARKNET_PIXELS = PixelConfig(order="rgb", scale=255.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
"""Darknet's 0..1, as YOLACT feeds its DarkNet."""
