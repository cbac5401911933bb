"""ResNet and ResNeXt (He et al. 2015; Xie et al. 2016) that give the features of all four stages.

Legend: `B` images, `C` channels, `H, W` height and width of the input.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from det_backbones.deformable import Deformable, DeformConv2d
from det_backbones.depth import Depth
from det_backbones.folding import Normalized
from det_backbones.initialization import kaiming_normal
from det_backbones.norm import Norm, affine_maps, convolve_and_normalize, make_norm
from det_backbones.recompute import recomputed

BLOCKS: dict[int, tuple[int, int, int, int]] = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shape:
    """Numbers of one residual block."""

    in_channels: int
    channels: int
    out_channels: int
    stride: int
    groups: int
    stride_in_1x1: bool
    norm: Norm
    norm_eps: float
    deformable: Deformable | None  # where this block has a deformable convolution


def _downsample(shape: _Shape) -> nn.Sequential | None:
    if shape.stride == 1 and shape.in_channels == shape.out_channels:
        return None
    return nn.Sequential(
        nn.Conv2d(shape.in_channels, shape.out_channels, 1, shape.stride, bias=False),
        make_norm(shape.norm, shape.out_channels, shape.norm_eps),
    )


class _Block(Normalized):
    """What the blocks have in common."""

    downsample: nn.Sequential | None

    def normalized(self) -> Iterator[tuple[str, str]]:
        """See :func:`~det_backbones.fold_norms`."""
        for number in (1, 2, 3):
            if hasattr(self, f"conv{number}"):
                yield f"conv{number}", f"bn{number}"
        if self.downsample is not None:
            yield "downsample.0", "downsample.1"

    def _add_shortcut(self, out: Tensor, x: Tensor) -> Tensor:
        if self.downsample is not None:
            x = convolve_and_normalize(x, cast(nn.Conv2d, self.downsample[0]), self.downsample[1])
        return F.relu_(out.add_(x))


class BasicBlock(_Block):
    """Two 3 x 3 convolutions and the shortcut: the block of ResNet-18 and 34."""

    def __init__(self, shape: _Shape) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(shape.in_channels, shape.channels, 3, shape.stride, 1, bias=False)
        self.bn1 = make_norm(shape.norm, shape.channels, shape.norm_eps)
        self.conv2 = nn.Conv2d(shape.channels, shape.out_channels, 3, 1, 1, bias=False)
        self.bn2 = make_norm(shape.norm, shape.out_channels, shape.norm_eps)
        self.downsample = _downsample(shape)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: [B, C, H, W] with C = in_channels.

        Returns:
            [B, C, ceil(H / stride), ceil(W / stride)] with C = out_channels.
        """
        out = F.relu_(convolve_and_normalize(x, self.conv1, self.bn1))
        out = convolve_and_normalize(out, self.conv2, self.bn2)
        return self._add_shortcut(out, x)


class Bottleneck(_Block):
    """1 x 1, 3 x 3 (grouped in ResNeXt), 1 x 1 convolutions and the shortcut: the block of ResNet-50 and deeper."""

    def __init__(self, shape: _Shape) -> None:
        super().__init__()
        stride1, stride3 = (shape.stride, 1) if shape.stride_in_1x1 else (1, shape.stride)
        self.conv1 = nn.Conv2d(shape.in_channels, shape.channels, 1, stride1, bias=False)
        self.bn1 = make_norm(shape.norm, shape.channels, shape.norm_eps)
        self.conv2: nn.Conv2d | DeformConv2d
        if shape.deformable is None:
            self.conv2 = nn.Conv2d(shape.channels, shape.channels, 3, stride3, 1, groups=shape.groups, bias=False)
        else:
            self.conv2 = DeformConv2d(shape.channels, shape.channels, stride3, shape.deformable.operator)
        self.bn2 = make_norm(shape.norm, shape.channels, shape.norm_eps)
        self.conv3 = nn.Conv2d(shape.channels, shape.out_channels, 1, bias=False)
        self.bn3 = make_norm(shape.norm, shape.out_channels, shape.norm_eps)
        self.downsample = _downsample(shape)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: [B, C, H, W] with C = in_channels.

        Returns:
            [B, C, ceil(H / stride), ceil(W / stride)] with C = out_channels.
        """
        out = F.relu_(convolve_and_normalize(x, self.conv1, self.bn1))
        out = F.relu_(convolve_and_normalize(out, self.conv2, self.bn2))
        out = convolve_and_normalize(out, self.conv3, self.bn3)
        return self._add_shortcut(out, x)


class ResNet(Normalized):
    """A ResNet without its classifier; see :func:`resnet` for the arguments.

    Parameters carry torchvision's names (`conv1`, `bn1`, `layer1.0.conv1`, `layer1.0.downsample.0`, ...).

    Attributes:
        out_channels: Channels of C2, C3, C4, C5.
        strides: Their strides in pixels of the input: 4, 8, 16, 32.
        freeze_at: How many of stem, layer1, ..., layer4 are constant.
        recompute: Whether stages are computed again in the backward pass.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        block: type[BasicBlock] | type[Bottleneck],
        *,
        norm: Norm = "frozen_bn",
        norm_eps: float = 1e-5,
        stride_in_1x1: bool = False,
        groups: int = 1,
        width_per_group: int = 64,
        freeze_at: int = 2,
        width: int = 64,
        zero_init_residual: bool = False,
        deformable: Deformable | None = None,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= freeze_at <= 5:
            raise ValueError(f"freeze_at must be 0 (nothing), 1 (stem), 2 (stem and layer1), ... or 5, got {freeze_at}")
        if width < 1 or width * width_per_group % 64:
            raise ValueError(
                f"width must be positive and width * width_per_group a multiple of 64, got {width} * {width_per_group}"
            )
        if block is BasicBlock and (groups != 1 or width_per_group != 64):
            raise ValueError("groups and width_per_group are for depth 50 and more: the basic block has no groups")
        if deformable is not None and (block is BasicBlock or groups != 1):
            raise ValueError("deformable convolutions are for ResNets of depth 50 and more, without groups")
        self.freeze_at = freeze_at
        self.recompute = recompute
        self.strides = (4, 8, 16, 32)
        expansion = 4 if block is Bottleneck else 1
        self.out_channels = tuple(width * 2**stage * expansion for stage in range(4))

        def stage_norm(index: int) -> Norm:
            # The statistics of a frozen stage must be constant too, whatever the trained ones use.
            return "frozen_bn" if index < freeze_at and norm != "gn" else norm

        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = make_norm(stage_norm(0), width, norm_eps)

        def make_layer(stage: int) -> nn.Sequential:
            layer = nn.Sequential()
            for index in range(blocks[stage]):
                bends = deformable is not None and deformable.replaces(stage, index, blocks[stage])
                shape = _Shape(
                    in_channels=self.out_channels[stage] if index else (width, *self.out_channels)[stage],
                    channels=width * 2**stage * width_per_group // 64 * groups,
                    out_channels=self.out_channels[stage],
                    stride=2 if stage > 0 and index == 0 else 1,
                    groups=groups,
                    stride_in_1x1=stride_in_1x1,
                    norm=stage_norm(stage + 1),
                    norm_eps=norm_eps,
                    deformable=deformable if bends else None,
                )
                layer.append(block(shape))
            return layer

        self.layer1 = make_layer(0)
        self.layer2 = make_layer(1)
        self.layer3 = make_layer(2)
        self.layer4 = make_layer(3)

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                kaiming_normal(module)
            elif zero_init_residual and isinstance(module, BasicBlock | Bottleneck):
                last = module.bn3 if isinstance(module, Bottleneck) else module.bn2
                nn.init.zeros_(cast(Tensor, last.weight))
        for module in self.modules():
            if isinstance(module, DeformConv2d):
                module.reset_parameters()
        frozen = [(self.conv1, self.bn1), (self.layer1,), (self.layer2,), (self.layer3,), (self.layer4,)][:freeze_at]
        for module in (module for stage in frozen for module in stage):
            module.requires_grad_(False)

    def normalized(self) -> Iterator[tuple[str, str]]:
        """See :func:`~det_backbones.fold_norms`."""
        yield "conv1", "bn1"

    def layer_groups(self) -> tuple[tuple[str, ...], ...]:
        """What the names of the stem's and of each stage's parameters begin with, from the input on."""
        return (("conv1.", "bn1."), *((f"layer{stage}.",) for stage in (1, 2, 3, 4)))

    def stem(self, x: Tensor) -> Tensor:
        """Compute what comes before the first stage.

        Args:
            x: [B, 3, H, W].

        Returns:
            [B, width, ceil(H / 4), ceil(W / 4)].
        """
        x = F.relu_(convolve_and_normalize(x, self.conv1, self.bn1))
        return F.max_pool2d(x, 3, 2, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Give the features of the four stages.

        Args:
            x: [B, 3, H, W], normalised as the weights expect. H and W that 32 divides keep every level
                aligned; others are rounded up at each stride.

        Returns:
            C2, C3, C4, C5: [B, C, H / s, W / s] of `out_channels` and `strides`. Frozen stages build no graph.
        """
        features = []
        with affine_maps(self, x):
            for index, stage in enumerate((self.stem, self.layer1, self.layer2, self.layer3, self.layer4)):
                if index < self.freeze_at:
                    with torch.no_grad():
                        x = stage(x)
                else:
                    x = recomputed(stage, x) if self.recompute and isinstance(stage, nn.Module) else stage(x)
                if index:
                    features.append(x)
        return features


def resnet(
    depth: Depth = 50,
    *,
    norm: Norm = "frozen_bn",
    norm_eps: float = 1e-5,
    stride_in_1x1: bool = False,
    groups: int = 1,
    width_per_group: int = 64,
    freeze_at: int = 2,
    width: int = 64,
    zero_init_residual: bool = False,
    deformable: Deformable | None = None,
    recompute: bool = False,
) -> ResNet:
    """A ResNet of the given depth, or a ResNeXt with `groups` and `width_per_group`.

    Args:
        depth: 18, 34 (basic blocks), 50, 101 or 152 (bottlenecks).
        norm: Normalisation of the stages that are trained. Frozen stages use "frozen_bn" in place of any batch
            normalisation, so that their statistics are constant too.
        norm_eps: Its epsilon.
        stride_in_1x1: Stride in the first 1 x 1 convolution of a bottleneck (MSRA's and Caffe2's networks) instead of
            the 3 x 3 (torchvision's).
        groups: Groups of the 3 x 3 convolution: 32 in ResNeXt-101-32x8d.
        width_per_group: Channels of each group in the first stage: 8 in ResNeXt-101-32x8d.
        freeze_at: 0: everything is trained, 1: all but the stem, 2: all but stem and layer1, ..., 5: nothing.
        width: Channels of the stem; all stages scale with it.
        zero_init_residual: Start with blocks that are the identity (Goyal et al. 2017); only for training from scratch.
        deformable: Which 3 x 3 convolutions are deformable; None: none.
        recompute: Keep only what goes into a stage for the backward pass, and compute the stage again there: less
            memory, a longer step, the same numbers.

    Raises:
        ValueError: An argument outside the values above.
    """
    if depth not in BLOCKS:
        raise ValueError(f"depth must be one of {', '.join(map(str, BLOCKS))}, got {depth}")
    return ResNet(
        BLOCKS[depth],
        Bottleneck if depth >= 50 else BasicBlock,
        norm=norm,
        norm_eps=norm_eps,
        stride_in_1x1=stride_in_1x1,
        groups=groups,
        width_per_group=width_per_group,
        freeze_at=freeze_at,
        width=width,
        zero_init_residual=zero_init_residual,
        deformable=deformable,
        recompute=recompute,
    )


def resnext101_32x8d(
    *, norm: Norm = "frozen_bn", norm_eps: float = 1e-5, stride_in_1x1: bool = False, freeze_at: int = 2
) -> ResNet:
    """ResNeXt-101 with 32 groups of 8 channels; arguments as in :func:`resnet`."""
    return resnet(
        101,
        norm=norm,
        norm_eps=norm_eps,
        stride_in_1x1=stride_in_1x1,
        groups=32,
        width_per_group=8,
        freeze_at=freeze_at,
    )
