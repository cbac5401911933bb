"""Published ImageNet weights: where they are, how they were made and what pixels they expect."""

import types
from collections.abc import Mapping
from dataclasses import dataclass

from det_backbones.pixels import CAFFE2_PIXELS, DARKNET_PIXELS, TORCHVISION_PIXELS, PixelConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedFile:
    """A file with weights that its authors publish.

    Attributes:
        file: Its name.
        url: Where it is published.
        sha256: The SHA-256 sum or its first digits, as published; None where none is published.
        md5: The same of the MD5 sum, which detectron2 puts into its names.
    """

    file: str
    url: str
    sha256: str | None = None
    md5: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainedWeights(PublishedFile):
    """ImageNet weights that their authors publish.

    Attributes:
        depth: Of the ResNet, or 53 of the DarkNet.
        groups: Of its 3 x 3 convolutions.
        width_per_group: Of the first stage.
        stride_in_1x1: Where its bottlenecks have the stride.
        pixels: The input it expects.
    """

    depth: int
    groups: int = 1
    width_per_group: int = 64
    stride_in_1x1: bool
    pixels: PixelConfig


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
    file: str, depth: int, sha256: str | None = None, pixels: PixelConfig = TORCHVISION_PIXELS
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
