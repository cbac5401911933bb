"""DarkNet-53 (Redmon and Farhadi 2018) that gives the features of all five stages.

Legend: `B` images, `C` channels, `H, W` height and width of the input.
"""

from collections.abc import Iterator, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from det_backbones.folding import Normalized
from det_backbones.initialization import kaiming_normal
from det_backbones.norm import Norm, affine_maps, convolve_and_normalize, make_norm
from det_backbones.recompute import recomputed

_SLOPE = 0.1  # of the leaky ReLU, in darknet's src/activations.h


class _Convolution(Normalized):
    """A convolution, its normalisation and the activation."""

    def __init__(self, in_channels: int, channels: int, kernel: int, stride: int, norm: Norm, norm_eps: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, bias=False)
        self.bn = make_norm(norm, channels, norm_eps)
        kaiming_normal(self.conv)

    def normalized(self) -> Iterator[tuple[str, str]]:
        yield "conv", "bn"

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu_(convolve_and_normalize(x, self.conv, self.bn), _SLOPE)


class _Block(nn.Module):
    """1 x 1 convolution to half the channels, 3 x 3 back, and the shortcut, which no activation follows."""

    def __init__(self, channels: int, norm: Norm, norm_eps: float) -> None:
        super().__init__()
        self.reduce = _Convolution(channels, channels // 2, 1, 1, norm, norm_eps)
        self.expand = _Convolution(channels // 2, channels, 3, 1, norm, norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.expand(self.reduce(x)) + x


class DarkNet(nn.Module):
    """A DarkNet without its classifier: a stem, and five stages that each halve the size.

    Args:
        blocks: Residual blocks of each stage.
        norm: Normalisation of all convolutions.
        norm_eps: Its epsilon.
        width: Channels of the stem; all stages scale with it.
        recompute: Compute the stages again in the backward pass instead of keeping their maps.

    Attributes:
        out_channels: Channels of C1, ..., C5.
        strides: Their strides in pixels of the input: 2, 4, 8, 16, 32.
    """

    def __init__(
        self,
        blocks: Sequence[int] = (1, 2, 8, 8, 4),
        *,
        norm: Norm = "frozen_bn",
        norm_eps: float = 1e-5,
        width: int = 32,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        if len(blocks) != 5 or min(blocks) < 0:
            raise ValueError(f"blocks must be five counts, one for each stage, got {tuple(blocks)}")
        self.recompute = recompute
        self.strides = (2, 4, 8, 16, 32)
        self.out_channels = tuple(width * 2 ** (stage + 1) for stage in range(5))
        self.stem = _Convolution(3, width, 3, 1, norm, norm_eps)
        self.layers = nn.ModuleList()
        for count, before, channels in zip(blocks, (width, *self.out_channels), self.out_channels, strict=False):
            stage = nn.Sequential(_Convolution(before, channels, 3, 2, norm, norm_eps))
            stage.extend(_Block(channels, norm, norm_eps) for _ in range(count))
            self.layers.append(stage)

    def layer_groups(self) -> tuple[tuple[str, ...], ...]:
        """What the names of the stem's and of each stage's parameters begin with, from the input on."""
        return (("stem.",), *((f"layers.{stage}.",) for stage in range(len(self.layers))))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Give the features of the five stages.

        Args:
            x: [B, 3, H, W], normalised as the weights expect.

        Returns:
            C1, ..., C5: [B, C, ceil(H / s), ceil(W / s)] of `out_channels` and `strides`.
        """
        features = []
        with affine_maps(self, x):
            x = self.stem(x)
            for stage in self.layers:
                x = recomputed(stage, x) if self.recompute else stage(x)
                features.append(x)
        return features
