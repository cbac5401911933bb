"""Modulated deformable convolution (DCNv2, Zhu et al. 2018) as a layer around an operator that is handed in.

Legend: `B` images, `C` channels, `H, W` height and width.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Operator = Callable[..., Tensor]
"""`deform_conv2d(input, offset, weight, bias, *, stride, padding, mask)` as torchvision and det_ops have it: one offset
(y, x) `[B, 2 * 9, H', W']` and one factor `[B, 9, H', W']` per tap and position of the result."""

_TAPS = 9


@dataclass(frozen=True, kw_only=True, slots=True)
class Deformable:
    """The choice of 3 x 3 convolutions of a ResNet with bottlenecks are deformable, and what computes them.

    Attributes:
        operator: The deformable convolution.
        blocks: How many of the last blocks of layer1, ..., layer4 may have one.
        interval: Of these, only blocks whose number (from 0) this divides do. YOLACT++: (0, 4, 6, 3) of ResNet-50, all;
            (0, 4, 23, 3) of ResNet-101, every third.
    """

    operator: Operator
    blocks: tuple[int, int, int, int] = (0, 4, 6, 3)
    interval: int = 1

    def __post_init__(self) -> None:
        if len(self.blocks) != 4 or min(self.blocks) < 0:
            raise ValueError(f"blocks must be four counts, one for each stage, got {self.blocks}")
        if self.interval < 1:
            raise ValueError(f"interval must be positive, got {self.interval}")

    def replaces(self, stage: int, block: int, blocks: int) -> bool:
        """Whether block `block` of the `blocks` of stage 0..3 has a deformable convolution."""
        return block + self.blocks[stage] >= blocks and block % self.interval == 0


class DeformConv2d(nn.Module):
    """A 3 x 3 convolution that looks where another convolution of its input tells each tap to look, and how hard.

    `weight` [out_channels, in_channels, 3, 3] has the name of the convolution it replaces, so that pretrained weights
    fit. `offset_mask` starts as zero: no offsets, and every tap counts one half.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the result.
        stride: Of the convolution; the padding is 1.
        operator: What computes it.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, operator: Operator) -> None:
        super().__init__()
        self.stride = stride
        self.operator = operator
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.offset_mask = nn.Conv2d(in_channels, 3 * _TAPS, 3, stride, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights as DCNv2 does, uniform by fan-in, and begin without deformation."""
        bound = 1 / math.sqrt(self.weight[0].numel())
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.zeros_(self.bias)
        nn.init.zeros_(self.offset_mask.weight)
        nn.init.zeros_(self.offset_mask.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Convolve where the offsets say.

        Args:
            x: [B, C, H, W], any floating dtype.

        Returns:
            [B, out_channels, ceil(H / stride), ceil(W / stride)], the same dtype.
        """
        return self.convolve(x, self.weight, self.bias)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Do the same with another weight and bias, for a normalisation that was folded into them.

        Args:
            x: [B, C, H, W].
            weight: [O, C, 3, 3] with O = out_channels.
            bias: [O].

        Returns:
            [B, out_channels, ceil(H / stride), ceil(W / stride)].
        """
        offset_mask = self.offset_mask
        where = F.conv2d(x, offset_mask.weight, offset_mask.bias, offset_mask.stride, offset_mask.padding)
        offset, mask = where.split((2 * _TAPS, _TAPS), dim=1)  # [B, 18, H', W'], [B, 9, H', W']
        return self.operator(x, offset, weight, bias, stride=self.stride, padding=1, mask=mask.sigmoid())
