"""Published ImageNet weights: where they are, how they were made and what pixels they expect."""

import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelConvention:
    """How an image of 0..255 becomes the network's input: channels in `order`, then `(x - mean) / std`.

    `mean` and `std` are in units of 0..255 and in the order of the channels.
    """

    order: Literal["rgb", "bgr"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


CAFFE2_PIXELS = PixelConvention(order="bgr", mean=(103.53, 116.28, 123.675), std=(1.0, 1.0, 1.0))
"""What detectron2 feeds to MSRA's networks (maskrcnn-benchmark: the means 102.9801, 115.9465, 122.7717)."""

TORCHVISION_PIXELS = PixelConvention(order="rgb", mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
"""torchvision's 0.485, 0.456, 0.406 and 0.229, 0.224, 0.225 times 255."""

DARKNET_PIXELS = PixelConvention(order="rgb", mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0))
"""Darknet's 0..1, as YOLACT feeds its DarkNet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainedWeights:
    """One published file.

    Attributes:
        file: Its name.
        url: Where it is published.
        sha256: The SHA-256 sum or its first digits, as published; None where none is published.
        depth: Of the ResNet, or 53 of the DarkNet.
        groups: Of its 3 x 3 convolutions.
        width_per_group: Of the first stage.
        stride_in_1x1: Where its bottlenecks have the stride.
        pixels: The input it expects.
    """

    file: str
    url: str
    sha256: str | None
    depth: int
    groups: int = 1
    width_per_group: int = 64
    stride_in_1x1: bool
    pixels: PixelConvention


def _msra(depth: int) -> PretrainedWeights:
    # detectron2 publishes no checksum for these two; see download.py for what is verified instead.
    file = f"R-{depth}.pkl"
    return PretrainedWeights(
        file=file,
        url=f"https://dl.fbaipublicfiles.com/detectron2/ImageNetPretrained/MSRA/{file}",
        sha256=None,
        depth=depth,
        stride_in_1x1=True,
        pixels=CAFFE2_PIXELS,
    )


def _torchvision(name: str, sha256: str, depth: int, groups: int = 1, width_per_group: int = 64) -> PretrainedWeights:
    # torch.hub's custom: the file name ends with the first digits of the SHA-256 sum.
    file = f"{name}-{sha256}.pth"
    return PretrainedWeights(
        file=file,
        url=f"https://download.pytorch.org/models/{file}",
        sha256=sha256,
        depth=depth,
        groups=groups,
        width_per_group=width_per_group,
        stride_in_1x1=False,
        pixels=TORCHVISION_PIXELS,
    )


def _yolact(
    file: str, depth: int, sha256: str | None = None, pixels: PixelConvention = TORCHVISION_PIXELS
) -> PretrainedWeights:
    # YOLACT's README names these, with a checksum only where torch.hub's custom gave one.
    url = f"https://huggingface.co/dbolya/yolact-initial-weights/resolve/main/{file}"
    return PretrainedWeights(file=file, url=url, sha256=sha256, depth=depth, stride_in_1x1=False, pixels=pixels)


WEIGHTS: Mapping[str, PretrainedWeights] = types.MappingProxyType(
    {
        weights.file: weights
        for weights in (
            _msra(50),
            _msra(101),
            _torchvision("resnet18", "f37072fd", 18),
            _torchvision("resnet34", "b627a593", 34),
            _torchvision("resnet50", "0676ba61", 50),
            _torchvision("resnet101", "63fe2227", 101),
            _torchvision("resnet152", "394f9c45", 152),
            _torchvision("resnext101_32x8d", "8ba56ff5", 101, groups=32, width_per_group=8),
            _yolact("resnet101_reducedfc.pth", 101),
            _yolact("resnet50-19c8e357.pth", 50, "19c8e357"),
            _yolact("darknet53.pth", 53, pixels=DARKNET_PIXELS),
        )
    }
)
"""The published files by file name."""
