"""Deformable convolution in ONNX: `GridSample` of all taps, and a matrix product.

`B` images, `C` channels in, `O` channels out, `G` groups, `D` groups of channels that share offsets, `T` taps of the
kernel, `P` output pixels.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from det_ops.onnx.values import constant, in_dtype_of, in_float32, op


def deform_conv2d(
    input: Any,  # noqa: A002
    offset: Any,
    mask: Any,
    weight: Any,
    bias: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Any:
    """Translate `det_ops::deform_conv2d` of `input [B, C, H, W]` and `weight [O, C / G, k_h, k_w]`, in float32."""
    channels, *size = input.shape[1:]
    outputs, own, *kernel = weight.shape
    taps, out = kernel[0] * kernel[1], offset.shape[2:]
    groups, sharing = channels // own, offset.shape[1] // (2 * taps)
    pixels, given = out[0] * out[1], input
    input, offset, weight = (in_float32(values) for values in (given, offset, weight))  # noqa: A001
    places = _regular(kernel, out, stride, padding, dilation)  # [T, 2, P]
    moved = op.Add(op.Reshape(offset, [-1, taps, 2, pixels]), constant(places))  # [B * D, T, 2, P]
    # Centres of pixels are at 0, 1, ... here, and the map is from -1 to 1 in the grid.
    halves = constant(np.array([2 / size[0], 2 / size[1]], np.float32)[:, None])
    edges = constant(np.array([1 / size[0] - 1, 1 / size[1] - 1], np.float32)[:, None])
    down, across = op.Split(op.Add(op.Mul(moved, halves), edges), axis=2, num_outputs=2)
    grid = op.Transpose(op.Concat(across, down, axis=2), perm=[0, 1, 3, 2])  # [B * D, T, P, 2]
    maps = op.Reshape(input, [-1, channels // sharing, *size])
    samples = op.GridSample(maps, grid, align_corners=0, mode="bilinear", padding_mode="zeros")  # [B * D, C / D, T, P]
    if mask is not None:
        samples = op.Mul(samples, op.Reshape(in_float32(mask), [-1, 1, taps, pixels]))
    columns = op.Reshape(samples, [-1, groups, own * taps, pixels])
    matrix = op.Reshape(weight, [1, groups, outputs // groups, own * taps])
    found = op.Reshape(op.MatMul(matrix, columns), [-1, outputs, *out])
    if bias is not None:
        found = op.Add(found, op.Reshape(in_float32(bias), [1, outputs, 1, 1]))
    return in_dtype_of(found, given)


def _regular(
    kernel: Sequence[int], out: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> np.ndarray:
    """Rows and columns of the samples without offsets: `[T, 2, P]`."""
    sides = [
        np.arange(taps)[:, None] * step - around + np.arange(length) * pace
        for taps, step, around, length, pace in zip(kernel, dilation, padding, out, stride, strict=True)
    ]  # [k_h, H'] and [k_w, W']
    shape = (kernel[0], kernel[1], out[0], out[1])
    rows = np.broadcast_to(sides[0][:, None, :, None], shape)
    columns = np.broadcast_to(sides[1][None, :, None, :], shape)
    return np.stack([rows, columns], 2).reshape(kernel[0] * kernel[1], 2, -1).astype(np.float32)
