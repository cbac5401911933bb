"""Deformable convolution in ExecuTorch: `grid_sample` of all taps, and a matrix product.

`B` images, `C` channels in, `O` channels out, `G` groups, `D` groups of channels that share offsets, `T` taps of the
kernel, `P` output pixels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def deform_conv2d(
    input: Tensor,  # noqa: A002
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> Tensor:
    """The operator `det_ops::deform_conv2d` of `input [B, C, H, W]` and `weight [O, C / G, k_h, k_w]`."""
    batch, channels, *size = input.shape
    outputs, own, *kernel = weight.shape
    taps, out = kernel[0] * kernel[1], list(offset.shape[2:])
    groups, sharing = channels // own, offset.shape[1] // (2 * taps)
    sides = [
        torch.arange(count)[:, None] * step - around + torch.arange(length) * pace
        for count, step, around, length, pace in zip(kernel, dilation, padding, out, stride, strict=True)
    ]  # [k_h, H'] and [k_w, W']
    shape = (*kernel, *out)
    rows, columns = sides[0][:, None, :, None].expand(shape), sides[1][None, :, None, :].expand(shape)
    places = torch.stack((rows, columns), 2).reshape(taps, 2, -1)  # [T, 2, P]
    moved = offset.reshape(batch * sharing, taps, 2, -1) + places
    # Centres of pixels are at 0, 1, ... here, and the map is from -1 to 1 in the grid.
    grid = [(2.0 * moved[:, :, axis] + 1.0) / size[axis] - 1.0 for axis in (1, 0)]  # of each [B * D, T, P]
    maps = input.reshape(batch * sharing, channels // sharing, *size)
    samples = F.grid_sample(maps, torch.stack(grid, -1), align_corners=False)  # [B * D, C / D, T, P]
    if mask is not None:
        samples = samples * mask.reshape(batch * sharing, 1, taps, -1)
    columns = samples.reshape(batch, groups, own * taps, -1)
    found = (weight.reshape(1, groups, outputs // groups, own * taps) @ columns).reshape(batch, outputs, *out)
    return found if bias is None else found + bias[:, None, None]
