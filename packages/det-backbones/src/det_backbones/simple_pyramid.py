"""Simple feature pyramid of plain vision transformers (Li et al., ViTDet, arXiv:2203.16527).

Legend: `B` images, `C` channels, `H, W` height and width of the input.
"""

from collections.abc import Sequence
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from det_backbones.norm import ChannelNorm


class _Gelu(nn.GELU):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        # The norm before it leaves the channels last in memory, which torch_npu's GELU refuses.
        return super().forward(input.contiguous())


class SimplePyramid(nn.Module):
    """Levels of strides 4, 8, 16, 32 and 64 from the one feature of a plain vision transformer, of stride 16.

    The feature is enlarged by transposed convolutions, left as it is, or pooled; each level then has a 1 x 1 and a
    3 x 3 convolution with layer normalisation, and the last level is the one before it subsampled by 2. As
    detectron2's `SimpleFeaturePyramid`, whose layers start as PyTorch's do.

    Args:
        in_channels: Channels of the feature; 4 must divide them.
        out_channels: Channels of every level.
    """

    def __init__(self, in_channels: int, out_channels: int = 256) -> None:
        super().__init__()
        half, quarter = in_channels // 2, in_channels // 4
        self.in_channels = (in_channels,)
        self.out_channels = out_channels
        self.scale = nn.ModuleList(
            (
                nn.Sequential(
                    nn.ConvTranspose2d(in_channels, half, 2, 2),
                    ChannelNorm(half),
                    _Gelu(),
                    nn.ConvTranspose2d(half, quarter, 2, 2),
                ),
                nn.ConvTranspose2d(in_channels, half, 2, 2),
                nn.Identity(),
                nn.MaxPool2d(2, 2),
            )
        )
        channels = (quarter, half, in_channels, in_channels)
        self.lateral = nn.ModuleList(nn.Conv2d(own, out_channels, 1, bias=False) for own in channels)
        self.lateral_norm = nn.ModuleList(ChannelNorm(out_channels) for _ in channels)
        self.output = nn.ModuleList(nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False) for _ in channels)
        self.output_norm = nn.ModuleList(ChannelNorm(out_channels) for _ in channels)

    def level_strides(self, strides: Sequence[int]) -> tuple[int, ...]:
        """The strides of the levels, for a feature of one stride: a quarter of it to four times as much."""
        (stride,) = strides
        return stride // 4, stride // 2, stride, stride * 2, stride * 4

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Make the levels.

        Args:
            features: one map [B, C, H / 16, W / 16] of `in_channels`.

        Returns:
            Five maps [B, C, H / s, W / s] of `out_channels` for s = 4, 8, 16, 32, 64, the last two rounded down and up.

        Raises:
            ValueError: There is not just one feature.
        """
        if len(features) != 1:
            raise ValueError(f"features must be the one map of a plain transformer, got {len(features)}")
        levels = []
        for level, scale in enumerate(self.scale):
            x = self.lateral_norm[level](self.lateral[level](scale(features[0])))
            levels.append(cast(Tensor, self.output_norm[level](self.output[level](x))))
        levels.append(F.max_pool2d(levels[-1], 1, 2))
        return levels
