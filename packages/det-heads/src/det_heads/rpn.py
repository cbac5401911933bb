"""The region proposal head and its outputs at chosen anchors.

Shapes: `B` images, `C` channels, `A` anchors per cell, `N` anchors of an image over all levels, `S` chosen anchors.
"""

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from det_heads.initialization import init_rpn

__all__ = ["RPNHead", "flatten_levels"]


def flatten_levels(maps: Sequence[Tensor], per_anchor: int) -> Tensor:
    """Joins the output maps of all levels in anchor order.

    Args:
        maps: Per level [B, A * per_anchor, H, W], channel ``a * per_anchor + k``.
        per_anchor: Values per anchor: 1 for objectness, 4 for deltas.

    Returns:
        [B, N, per_anchor]: levels, then y, x, then anchor.
    """
    return torch.cat([m.permute(0, 2, 3, 1).reshape(m.shape[0], -1, per_anchor) for m in maps], dim=1)


class RPNHead(nn.Module):
    """3x3 convolution, ReLU, and two 1x1 convolutions, shared by all levels (Faster R-CNN, section 3.1).

    Args:
        channels: Channels of the pyramid.
        per_cell: Anchors per cell, ``A``.
        convs: Number of 3x3 convolutions. One is called ``conv``, several are ``convs.0``, ``convs.1``, ...
    """

    def __init__(self, channels: int, per_cell: int, convs: int = 1) -> None:
        super().__init__()
        self.per_cell = per_cell
        hidden = [nn.Conv2d(channels, channels, 3, padding=1) for _ in range(convs)]
        if convs == 1:
            self.conv = hidden[0]
        else:
            self.convs = nn.ModuleList(hidden)
        self.objectness = nn.Conv2d(channels, per_cell, 1)
        self.deltas = nn.Conv2d(channels, 4 * per_cell, 1)
        init_rpn(hidden, self.objectness, self.deltas)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Dense outputs.

        Args:
            features: Per level [B, C, H, W].

        Returns:
            Per level objectness logits [B, A, H, W], and per level deltas [B, 4A, H, W] with channel ``4a + k``.
        """
        hidden = list(features)
        for conv in self._hidden_layers():
            hidden = [F.relu_(conv(h)) for h in hidden]
        return [self.objectness(h) for h in hidden], [self.deltas(h) for h in hidden]

    def _hidden_layers(self) -> list[nn.Module]:
        return list(self.convs) if hasattr(self, "convs") else [self.conv]

    def at(self, features: Sequence[Tensor], index: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs at chosen anchors, for the loss.

        The loss sees a few hundred of some 200 000 anchors, and the gradient of the rest is exactly zero. So the head
        is computed again on the chosen anchors' 3x3 surroundings only, and its backward pass costs a hundredth of
        that of the dense maps. Where most anchors are chosen, the dense maps are cheaper and are used; and after more
        than one convolution, whose surroundings are wider.

        Args:
            features: Per level [B, C, H, W].
            index: [B, S] int64, anchors in the order of :func:`flatten_levels`.

        Returns:
            Objectness logits [B, S] and deltas [B, S, 4].
        """
        positions = sum(f.shape[-2] * f.shape[-1] for f in features)
        if index.shape[1] * 4 > positions or len(self._hidden_layers()) > 1:
            return self._at_dense(features, index)
        return self._at_sparse(features, index)

    def _at_dense(self, features: Sequence[Tensor], index: Tensor) -> tuple[Tensor, Tensor]:
        logits, deltas = self(features)
        chosen_logits = flatten_levels(logits, 1).squeeze(2).gather(1, index)
        chosen_deltas = flatten_levels(deltas, 4).gather(1, index[:, :, None].expand(-1, -1, 4))
        return chosen_logits, chosen_deltas

    def _at_sparse(self, features: Sequence[Tensor], index: Tensor) -> tuple[Tensor, Tensor]:
        batch, chosen = index.shape
        anchor = index % self.per_cell
        patches = _surroundings(features, index // self.per_cell)  # [B, S, 9C]
        weight = self.conv.weight.permute(0, 2, 3, 1).flatten(1)  # [C, 9C]
        hidden = F.relu(F.linear(patches, weight, self.conv.bias))
        logits = F.linear(hidden, self.objectness.weight.flatten(1), self.objectness.bias)  # [B, S, A]
        deltas = F.linear(hidden, self.deltas.weight.flatten(1), self.deltas.bias)
        deltas = deltas.reshape(batch, chosen, self.per_cell, 4)
        chosen_logits = logits.gather(2, anchor[:, :, None]).squeeze(2)
        return chosen_logits, deltas.gather(2, anchor[:, :, None, None].expand(-1, -1, 1, 4)).squeeze(2)


def _surroundings(features: Sequence[Tensor], position: Tensor) -> Tensor:
    """The zero-padded 3x3 neighbourhoods of positions counted over all levels.

    Args:
        features: Per level [B, C, H, W].
        position: [B, S] int64, counted level by level, row by row.

    Returns:
        [B, S, 9C], the neighbours in row order, each with its channels.
    """
    batch, channels = features[0].shape[:2]
    neighbour = torch.arange(9, device=position.device)
    down, right = neighbour // 3 - 1, neighbour % 3 - 1
    image = torch.arange(batch, device=position.device)[:, None, None]
    parts = []
    start = 0
    for feature in features:
        height, width = feature.shape[-2:]
        local = (position - start)[:, :, None]
        y, x = local // width + down, local % width + right  # [B, S, 9]
        inside = (local >= 0) & (local < height * width) & (y >= 0) & (y < height) & (x >= 0) & (x < width)
        row = (image * height + y.clamp(0, height - 1)) * width + x.clamp(0, width - 1)
        rows = _Rows.apply(feature.permute(0, 2, 3, 1).reshape(-1, channels), row.flatten())
        parts.append(rows.view(*row.shape, channels) * inside[..., None])
        start += height * width
    return reduce(torch.add, parts).flatten(2)


class _Rows(torch.autograd.Function):
    """``table[index]``, [N, C] and [R] to [R, C]; PyTorch's own backward is many times slower than one index_add."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.rows = table.shape[0]
        return table.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (index,), (gradient,) = ctx.saved_tensors, gradients
        return gradient.new_zeros(ctx.rows, gradient.shape[1]).index_add_(0, index, gradient), None
