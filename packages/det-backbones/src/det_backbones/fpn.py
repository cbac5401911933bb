"""Feature pyramid network (Lin et al. 2016) over the stages of a backbone.

Legend: `B` images, `C` channels, `H_l, W_l` size of level l.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal, cast

import torch.nn.functional as F
from torch import Tensor, nn

from det_backbones.folding import Normalized
from det_backbones.initialization import caffe2_xavier, xavier_uniform
from det_backbones.norm import Norm, convolve_and_normalize, make_norm
from det_backbones.simple_pyramid import SimplePyramid
from det_backbones.spec import Body


class FPN(Normalized):
    """Lateral 1 x 1 convolutions, a top-down sum and 3 x 3 output convolutions.

    The coarser map is enlarged to the size of the lateral, which for sizes that 32 divides is the factor 2 of
    detectron2 and maskrcnn-benchmark, and for others what torchvision, mmdetection and YOLACT do. With `max_pool_level`
    the coarsest output is subsampled by 2 for one more level (P6); with `strided_levels` so many convolutions of
    stride 2 follow it (P6, P7 of YOLACT, RetinaNet and FCOS).

    Args:
        in_channels: Channels of the inputs, fine to coarse.
        out_channels: C.
        norm: Normalisation after each convolution (which then has no bias), or None.
        norm_eps: Its epsilon.
        max_pool_level: Whether to append the subsampled level.
        initialization: "caffe2_xavier" (detectron2, maskrcnn-benchmark, torchvision) or "xavier" (mmdetection, YOLACT).
        strided_levels: How many levels to append by convolutions of stride 2, in place of `max_pool_level`.
        upsampling: How the coarser map is enlarged: "nearest", or "bilinear" (YOLACT).
        activation: Whether a ReLU follows the output convolutions (YOLACT; not those of `strided_levels`).
        strided_input: What the first of `strided_levels` sees: the coarsest "output", or the coarsest "input", that of
            the body (detectron2's and mmdetection's RetinaNet).
        strided_activation: Whether a ReLU stands before each of `strided_levels` but the first (detectron2,
            torchvision).
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int = 256,
        *,
        norm: Norm | None = None,
        norm_eps: float = 1e-5,
        max_pool_level: bool = True,
        initialization: Literal["caffe2_xavier", "xavier"] = "caffe2_xavier",
        strided_levels: int = 0,
        upsampling: Literal["nearest", "bilinear"] = "nearest",
        activation: bool = False,
        strided_input: Literal["output", "input"] = "output",
        strided_activation: bool = False,
    ) -> None:
        super().__init__()
        if not in_channels:
            raise ValueError("in_channels must name the channels of at least one feature map, got none")
        initializers = {"caffe2_xavier": caffe2_xavier, "xavier": xavier_uniform}
        if initialization not in initializers:
            raise ValueError(f"initialization must be one of {', '.join(initializers)}, got {initialization!r}")
        if upsampling not in ("nearest", "bilinear"):
            raise ValueError(f"upsampling must be nearest or bilinear, got {upsampling!r}")
        if strided_input not in ("output", "input"):
            raise ValueError(f"strided_input must be output or input, got {strided_input!r}")
        if strided_levels < 0 or (strided_levels and max_pool_level):
            raise ValueError(
                f"strided_levels must not be negative, and 0 with max_pool_level, got {strided_levels} "
                f"and max_pool_level={max_pool_level}"
            )
        self.upsampling = upsampling
        self.activation = activation
        self.strided_input, self.strided_activation = strided_input, strided_activation
        self.in_channels = tuple(in_channels)
        self.out_channels = out_channels
        self.max_pool_level = max_pool_level
        bias = norm is None
        self.lateral = nn.ModuleList(nn.Conv2d(channels, out_channels, 1, bias=bias) for channels in in_channels)
        self.output = nn.ModuleList(nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=bias) for _ in in_channels)
        first = in_channels[-1] if strided_input == "input" else out_channels
        self.strided = nn.ModuleList(
            nn.Conv2d(out_channels if level else first, out_channels, 3, 2, 1) for level in range(strided_levels)
        )
        self.lateral_norm = nn.ModuleList()
        self.output_norm = nn.ModuleList()
        if norm is not None:
            self.lateral_norm.extend(make_norm(norm, out_channels, norm_eps) for _ in in_channels)
            self.output_norm.extend(make_norm(norm, out_channels, norm_eps) for _ in in_channels)
        for convolution in (*self.lateral, *self.output, *self.strided):
            initializers[initialization](cast(nn.Conv2d, convolution))

    def normalized(self) -> Iterator[tuple[str, str]]:
        """See :func:`~det_backbones.fold_norms`."""
        for kind in ("lateral", "output"):
            for level in range(len(self.lateral_norm)):
                yield f"{kind}.{level}", f"{kind}_norm.{level}"

    def level_strides(self, strides: Sequence[int]) -> tuple[int, ...]:
        """The strides of the levels, for features of some strides: those, and twice the last for each one appended."""
        appended = int(self.max_pool_level) + len(self.strided)
        return (*strides, *(strides[-1] * 2 ** (level + 1) for level in range(appended)))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Mix the features of all levels.

        Args:
            features: [B, C, H_l, W_l], of `in_channels`, fine to coarse; each is half the size of the one before.

        Returns:
            [B, C, H_l, W_l] for each input and each level appended, of half the size (rounded up).

        Raises:
            ValueError: There are not as many features as `in_channels`, or one is not half the size of the one before.
        """
        if len(features) != len(self.lateral):
            raise ValueError(f"features must be {len(self.lateral)} maps, fine to coarse, got {len(features)}")
        for fine, coarse in pairwise(feature.shape[-2:] for feature in features):
            if any(half not in (size // 2, (size + 1) // 2) for size, half in zip(fine, coarse, strict=True)):
                raise ValueError(
                    f"features must halve in size from map to map, got {' x '.join(map(str, coarse))} after "
                    f"{' x '.join(map(str, fine))}"
                )
        outputs: list[Tensor] = []
        merged: Tensor | None = None  # [B, C, H_l, W_l] of the level before, which is coarser
        for level in reversed(range(len(features))):
            lateral = self._convolve(features[level], self.lateral[level], self.lateral_norm, level)
            merged = lateral if merged is None else self._enlarge(merged, lateral).add_(lateral)
            del lateral  # before the next map of this size is made
            output = self._convolve(merged, self.output[level], self.output_norm, level)
            outputs.insert(0, F.relu_(output) if self.activation else output)
        if self.max_pool_level:
            outputs.append(F.max_pool2d(outputs[-1], 1, 2))
        last = features[-1] if self.strided_input == "input" else outputs[-1]
        for level, convolution in enumerate(self.strided):
            last = convolution(F.relu(last) if level and self.strided_activation else last)
            outputs.append(last)
        return outputs

    def _enlarge(self, x: Tensor, like: Tensor) -> Tensor:
        if self.upsampling == "nearest":
            return F.interpolate(x, size=like.shape[-2:], mode="nearest")
        return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)

    @staticmethod
    def _convolve(x: Tensor, convolution: nn.Module, norms: nn.ModuleList, level: int) -> Tensor:
        return convolve_and_normalize(x, cast(nn.Conv2d, convolution), norms[level]) if len(norms) else convolution(x)


class ResNetFPN(nn.Module):
    """A body (ResNet, DarkNet, a network of timm, anything that is a :class:`Body`) and the pyramid on its last stages.

    Args:
        body: Gives the features.
        fpn: The pyramid; its `in_channels` are those of the body's last stages. Of a plain transformer, whose one
            feature is all there is, a :class:`SimplePyramid`.

    Attributes:
        out_channels: Channels of every level.
        strides: Stride of every level in pixels of the input: 4, 8, 16, 32, 64; with YOLACT's pyramid 8, ..., 128.
    """

    def __init__(self, body: Body, fpn: FPN | SimplePyramid) -> None:
        super().__init__()
        levels = len(fpn.in_channels)
        if tuple(body.out_channels[-levels:]) != fpn.in_channels:
            raise ValueError(
                f"the pyramid's in_channels must be the last channels of the body, {body.out_channels}, "
                f"got {fpn.in_channels}"
            )
        self.body = body
        self.fpn = fpn
        self.out_channels = fpn.out_channels
        self.strides = fpn.level_strides(body.strides[-levels:])

    def layer_groups(self) -> tuple[tuple[str, ...], ...]:
        """What the names of the body's parameters begin with, layer by layer from the input on, without the pyramid's.

        Training may give each layer a learning rate of its own, the smaller the nearer it is to the input.
        """
        return tuple(tuple(f"body.{prefix}" for prefix in group) for group in self.body.layer_groups())

    def forward(self, x: Tensor) -> list[Tensor]:
        """Give the levels of the pyramid.

        Args:
            x: [B, 3, H, W].

        Returns:
            [B, C, H / s, W / s] for each level, of `out_channels` and `strides`.

        Raises:
            ValueError: The body gives features that are not of the strides it declares.
        """
        features = self.body(x)[-len(self.fpn.in_channels) :]
        for feature, stride in zip(features, self.body.strides[-len(features) :], strict=True):
            for pixels, cells in zip(x.shape[-2:], feature.shape[-2:], strict=True):
                if not pixels - stride < cells * stride < pixels + stride:
                    raise ValueError(
                        f"the body declares features of strides {self.body.strides}, but gives one of "
                        f"{' x '.join(map(str, feature.shape[-2:]))} for stride {stride} of an image of "
                        f"{' x '.join(map(str, x.shape[-2:]))} pixels; give the body the strides that it has"
                    )
        return self.fpn(features)
