"""Normalisation in heads, whose rows are boxes of which some are padding."""

from typing import Literal

import torch
from torch import Tensor, nn

from det_backbones import ChannelNorm, make_norm

__all__ = ["RowBatchNorm2d", "apply_norm", "make_row_norm"]


class RowBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation with the statistics of the rows that are used; else as ``nn.BatchNorm2d``.

    A batch without a used row leaves the running statistics as they are.
    """

    def forward(self, input: Tensor, used: Tensor | None = None) -> Tensor:  # noqa: A002 - torch's name
        """Normalise rows; the result has the same shape.

        Args:
            input: [R, C, H, W].
            used: [R] bool, rows that the statistics are of; None: all. The others are normalised by the same figures.
        """
        if used is None or not self.training:
            return super().forward(input)
        x = input.float()
        weight = used.to(x.dtype)[:, None, None, None]
        count = used.sum() * (x.shape[2] * x.shape[3])
        mean = (x * weight).sum((0, 2, 3)) / count.clamp(min=1)
        centred = x - mean[:, None, None]
        variance = (centred.square() * weight).sum((0, 2, 3)) / count.clamp(min=1)
        self._remember(mean.detach(), variance.detach(), count)
        scale = (variance + self.eps).rsqrt() * self.weight
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        seen = (count > 0).to(self.num_batches_tracked.dtype)
        share = (self.momentum or 0.0) * seen
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * (count / (count - 1).clamp(min=1)), share)
        self.num_batches_tracked.add_(seen)


def make_row_norm(kind: Literal["bn", "gn", "ln"], channels: int) -> nn.Module:
    """A layer that normalises rows of `channels` channels, for :func:`apply_norm`.

    Args:
        kind: "bn", :class:`RowBatchNorm2d`; "gn", group normalisation of 32 groups as every system has in its heads,
            of one group where 32 does not divide the channels (which the systems refuse); or "ln", layer normalisation
            of each place (detectron2's ViTDet).
        channels: C of the rows [R, C, H, W].

    Raises:
        ValueError: `kind` is neither.
    """
    if kind == "bn":
        return RowBatchNorm2d(channels)
    if kind == "gn":
        return make_norm("gn", channels, groups=32 if channels % 32 == 0 else 1)
    if kind == "ln":
        return ChannelNorm(channels)
    raise ValueError(f"norm must be bn, gn or ln, got {kind!r}")


def apply_norm(norm: nn.Module, rows: Tensor, used: Tensor | None) -> Tensor:
    """Rows [R, C, H, W] normalised, of which those `used` [R] bool count; the others look at each row alone."""
    return norm(rows, used) if isinstance(norm, RowBatchNorm2d) else norm(rows)
