"""Sampling for deformable convolution in plain PyTorch: static shapes, any device; the oracle of the kernel.

`B` images, `C` channels, `G` groups, `D` groups of channels that share offsets, `T` taps of the kernel, `P` output
pixels. Both functions loop over the four pixels around a sample.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Geometry:
    """All sizes of a deformable convolution but the batch; pairs are of rows and columns."""

    channels: int
    size: tuple[int, int]
    kernel: tuple[int, int]
    out: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    offset_groups: int

    @classmethod
    def of(
        cls,
        input: Tensor,  # noqa: A002
        offset: Tensor,
        weight: Tensor,
        stride: list[int],
        padding: list[int],
        dilation: list[int],
    ) -> "Geometry":
        """Sizes of the arguments of `det_ops.deform_conv2d`, which are not checked here."""
        height, width = weight.shape[2:]
        return cls(
            channels=input.shape[1],
            size=(input.shape[2], input.shape[3]),
            kernel=(height, width),
            out=(offset.shape[2], offset.shape[3]),
            stride=(stride[0], stride[1]),
            padding=(padding[0], padding[1]),
            dilation=(dilation[0], dilation[1]),
            groups=input.shape[1] // weight.shape[1],
            offset_groups=offset.shape[1] // (2 * height * width),
        )

    @property
    def taps(self) -> int:
        """Number of taps of the kernel."""
        return self.kernel[0] * self.kernel[1]

    @property
    def pixels(self) -> int:
        """Number of output pixels of an image."""
        return self.out[0] * self.out[1]


@dataclass(frozen=True, slots=True)
class _Corner:
    """One of the four pixels around all samples `[B, D, T, P]`: flat row of the map, and separable weights."""

    index: Tensor
    weight_y: Tensor
    weight_x: Tensor
    slope_y: Tensor  # derivative of weight_y
    slope_x: Tensor


def _corners(g: Geometry, offset: Tensor) -> Iterator[_Corner]:
    """The four pixels around all samples; those beyond the map, or around what is not finite, have no weight."""
    batch, device = offset.shape[0], offset.device
    parts = offset.reshape(batch, g.offset_groups, *g.kernel, 2, *g.out)
    sides = []
    for axis in range(2):
        tap = torch.arange(g.kernel[axis], device=device) * g.dilation[axis] - g.padding[axis]
        pixel = torch.arange(g.out[axis], device=device) * g.stride[axis]
        regular = (tap[:, None, None, None], tap[:, None, None])[axis] + (pixel[:, None], pixel)[axis]
        position = (regular + parts[:, :, :, :, axis]).flatten(4).flatten(2, 3)  # [B, D, T, P]
        first = position.floor()
        fraction = position - first
        sides.append([])
        for place, weight, slope in ((first, 1.0 - fraction, -1.0), (first + 1.0, fraction, 1.0)):
            inside = (place >= 0.0) & (place <= g.size[axis] - 1.0)
            index, weight = torch.where(inside, place, 0.0).long(), torch.where(inside, weight, 0.0)
            sides[axis].append((index, weight, inside * slope))
    image = torch.arange(batch, device=device)[:, None, None, None] * g.size[0]
    group = torch.arange(g.offset_groups, device=device)[:, None, None]
    for row, weight_y, slope_y in sides[0]:
        for column, weight_x, slope_x in sides[1]:
            index = ((image + row) * g.size[1] + column) * g.offset_groups + group
            yield _Corner(index, weight_y, weight_x, slope_y, slope_x)


def columns(g: Geometry, input: Tensor, offset: Tensor, mask: Tensor | None) -> Tensor:  # noqa: A002
    """Masked samples `[G, B * P, T * C / G]` of `input [B, H, W, C]`.

    `offset` is `[B, 2 * D * T, ...]`, `mask` `[B, D * T, ...]`, both over the output pixels; of one dtype.
    """
    batch = len(input)
    flat = input.reshape(-1, g.channels // g.offset_groups)  # [B * H * W * D, C / D]
    out = flat.new_zeros((batch, g.offset_groups, g.taps, g.pixels, flat.shape[1]))  # [B, D, T, P, C / D]
    for corner in _corners(g, offset):
        out = out + (corner.weight_y * corner.weight_x)[..., None] * flat[corner.index]
    if mask is not None:
        out = out * mask.reshape(batch, g.offset_groups, g.taps, g.pixels, 1)
    out = out.permute(0, 3, 2, 1, 4).reshape(batch * g.pixels, g.taps, g.groups, g.channels // g.groups)
    return out.permute(2, 0, 1, 3).flatten(2)


def columns_backward(
    g: Geometry,
    grad: Tensor,
    input: Tensor,  # noqa: A002
    offset: Tensor,
    mask: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `input [B, H, W, C]`, `offset` and `mask` (of ones, if there is none) for that of `columns`."""
    batch, shared = len(input), g.channels // g.offset_groups
    flat = input.reshape(-1, shared)
    values = grad.reshape(g.groups, batch * g.pixels, g.taps, g.channels // g.groups).permute(1, 2, 0, 3)
    values = values.reshape(batch, g.pixels, g.taps, g.offset_groups, shared).permute(
        0, 3, 2, 1, 4
    )  # [B, D, T, P, C/D]
    masks = 1.0 if mask is None else mask.reshape(values.shape[:-1])
    grad_input = torch.zeros_like(flat)
    by_y, by_x, by_mask = (values.new_zeros(values.shape[:-1]) for _ in range(3))
    for corner in _corners(g, offset):
        dot = (flat[corner.index] * values).sum(-1)  # [B, D, T, P]
        weight = corner.weight_y * corner.weight_x
        by_y, by_x = by_y + corner.slope_y * corner.weight_x * dot, by_x + corner.weight_y * corner.slope_x * dot
        by_mask = by_mask + weight * dot
        grad_input.index_add_(0, corner.index.flatten(), ((weight * masks)[..., None] * values).reshape(-1, shared))
    grad_offset = torch.stack((by_y * masks, by_x * masks), 3).reshape(offset.shape)
    return grad_input.view(input.shape), grad_offset, by_mask.reshape(batch, -1, *g.out)
