"""Convolutions and inner products of the first rows of a padded batch.

A mask head has room for every region that may be positive, and most often few are. The shapes stay static; the number
of live rows is a tensor, and on the CPU the kernel reads it and computes those rows alone.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from det_ops import _kernels
from det_ops._checks import check_device, describe, expect
from det_ops._kernels import LIBRARY

__all__ = ["convolution_rows", "dot_rows"]

LIBRARY.define(
    "convolution_rows(Tensor input, Tensor weight, Tensor? bias, Tensor count, int stride, int padding, "
    "bool transposed, bool relu) -> Tensor"
)
LIBRARY.define(
    "convolution_rows_backward(Tensor grad, Tensor input, Tensor weight, Tensor? out, Tensor count, int stride, "
    "int padding, bool transposed, bool[] needed) -> (Tensor, Tensor, Tensor)"
)
LIBRARY.define("dot_rows(Tensor input, Tensor weight, Tensor count) -> Tensor")
LIBRARY.define(
    "dot_rows_backward(Tensor grad, Tensor input, Tensor weight, Tensor count, bool[] needed) -> (Tensor, Tensor)"
)


def convolution_rows(
    input: Tensor,  # noqa: A002 - torch's name
    weight: Tensor,
    bias: Tensor | None,
    count: Tensor,
    *,
    stride: int = 1,
    padding: int = 0,
    transposed: bool = False,
    relu: bool = False,
) -> Tensor:
    """Convolution of the first `count` rows of the batch; the other rows of the result are zero.

    Args:
        input: `[N, C, H, W]` floating.
        weight: `[C_out, C, k, k]`, or `[C, C_out, k, k]` if transposed.
        bias: `[C_out]` or None.
        count: `[]` int64, number of live rows (values beyond 0..N are clamped).
        stride: Stride in both directions.
        padding: Zero padding on all sides.
        transposed: Transposed convolution.
        relu: Follow it by a rectifier, which would else touch the dead rows too.

    Returns:
        `[N, C_out, H', W']`, of autocast's dtype under autocast. Dead rows get and give no gradient; on devices other
        than the CPU they are computed and masked, so their input must be finite.

    Raises:
        ValueError: An argument has the wrong shape, dtype or device.
    """
    expect(input.ndim == 4 and input.is_floating_point(), "input", "a floating Tensor[N, C, H, W]", input)
    expect(
        weight.ndim == 4 and weight.shape[0 if transposed else 1] == input.shape[1],
        "weight",
        f"a Tensor[{f'{input.shape[1]}, C_out' if transposed else f'C_out, {input.shape[1]}'}, k, k]",
        weight,
    )
    channels = weight.shape[1 if transposed else 0]
    if bias is not None and bias.shape != (channels,):
        raise ValueError(f"bias must have shape [{channels}], got {describe(bias)}")
    _check_count(input, count)
    for tensor, name in ((weight, "weight"), (bias, "bias")):
        if tensor is not None:
            check_device(tensor, name, input, "input")
    input, weight, bias = _autocast(input, weight, bias)  # noqa: A001
    if _native(input):
        return torch.ops.det_ops.convolution_rows(input, weight, bias, count, stride, padding, transposed, relu)
    # All rows, then a mask: one static sequence of differentiable operators.
    convolution = F.conv_transpose2d if transposed else F.conv2d
    out = convolution(input, weight, bias, stride, padding)
    live = torch.arange(input.shape[0], device=input.device) < count
    out = torch.where(live[:, None, None, None], out, 0.0)
    return F.relu_(out) if relu else out


def dot_rows(input: Tensor, weight: Tensor, count: Tensor) -> Tensor:  # noqa: A002
    """Inner products of the vectors of the first `count` rows with the row's own weights; the other rows are zero.

    A 1x1 convolution to one channel, with weights of its own in every row: the mask of a region's class alone.

    Args:
        input: `[N, P, C]` floating.
        weight: `[N, C]`.
        count: `[]` int64, number of live rows (values beyond 0..N are clamped).

    Returns:
        `[N, P]`, of autocast's dtype under autocast. Dead rows get and give no gradient; on devices other than the CPU
        they are computed and masked, so they must be finite.

    Raises:
        ValueError: An argument has the wrong shape, dtype or device.
    """
    expect(input.ndim == 3 and input.is_floating_point(), "input", "a floating Tensor[N, P, C]", input)
    shape = (input.shape[0], input.shape[2])
    expect(weight.shape == shape, "weight", f"a Tensor[{shape[0]}, {shape[1]}]", weight)
    check_device(weight, "weight", input, "input")
    _check_count(input, count)
    input, own, _ = _autocast(input, weight, None)  # noqa: A001
    if _native(input):
        return torch.ops.det_ops.dot_rows(input, own, count)
    out = torch.bmm(input, own[:, :, None]).squeeze(2)
    live = torch.arange(input.shape[0], device=input.device) < count
    return torch.where(live[:, None], out, 0.0)


def _check_count(input: Tensor, count: Tensor) -> None:  # noqa: A002
    expect(count.shape == () and count.dtype == torch.int64, "count", "an int64 Tensor[]", count)
    check_device(count, "count", input, "input")


def _autocast(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    bias: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    kind = input.device.type
    if not torch.is_autocast_enabled(kind) or input.dtype == torch.float64:
        return input, weight, bias
    dtype = torch.get_autocast_dtype(kind)
    return input.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)


def _native(input: Tensor) -> bool:  # noqa: A002
    return input.device.type == "cpu" and _kernels.native(input)


def _size(extent: int, kernel: int, stride: int, padding: int, transposed: bool) -> int:
    if transposed:
        return (extent - 1) * stride - 2 * padding + kernel
    return (extent + 2 * padding - kernel) // stride + 1


def _out_shape(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    stride: int,
    padding: int,
    transposed: bool,
) -> tuple[int, int, int, int]:
    n, _, h, w = input.shape
    h, w = (_size(s, k, stride, padding, transposed) for s, k in zip((h, w), weight.shape[2:], strict=True))
    return n, weight.shape[1 if transposed else 0], h, w


def _channels_last(shape: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Strides."""
    _, c, h, w = shape
    return h * w * c, 1, w * c, c


def _zeros(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A contiguous tensor of zeros whose memory costs nothing where it is neither read nor written.

    torch writes its zeros; NumPy takes untouched pages of the system. Most rows are dead, and only live ones are used.
    """
    memory = torch.from_numpy(np.zeros(max(math.prod(shape), 1) * dtype.itemsize, np.uint8)).view(dtype)
    return memory[: math.prod(shape)].view(shape)


def _zeros_channels_last(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    n, c, h, w = shape
    return _zeros((n, h, w, c), dtype).permute(0, 3, 1, 2)


def _live(count: Tensor, rows: int) -> int:
    return min(max(int(count), 0), rows)


@torch.library.impl(LIBRARY, "convolution_rows", "CPU")
def _forward(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    bias: Tensor | None,
    count: Tensor,
    stride: int,
    padding: int,
    transposed: bool,
    relu: bool,
) -> Tensor:
    out = _zeros_channels_last(_out_shape(input, weight, stride, padding, transposed), input.dtype)
    live = _live(count, len(input))
    if live:
        found = torch.convolution(
            input[:live], weight, bias, [stride] * 2, [padding] * 2, [1, 1], transposed, [0, 0], 1
        )
        if relu:
            torch.clamp_min(found, 0, out=out[:live])
        else:
            out[:live] = found
    return out


@torch.library.impl(LIBRARY, "convolution_rows_backward", "CPU")
def _backward(
    grad: Tensor,
    input: Tensor,  # noqa: A002
    weight: Tensor,
    out: Tensor | None,
    count: Tensor,
    stride: int,
    padding: int,
    transposed: bool,
    needed: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    channels = weight.shape[1 if transposed else 0]
    grad_input = _zeros_channels_last(input.shape, input.dtype) if needed[0] else input.new_empty((0,))
    # Laid out as the weight is, so that nobody copies it again.
    grad_weight = torch.zeros_like(weight) if needed[1] else weight.new_empty((0,))
    grad_bias = weight.new_zeros((channels if needed[2] else 0,))
    live = _live(count, len(input))
    if live:
        above = grad[:live] if out is None else torch.ops.aten.threshold_backward(grad[:live], out[:live], 0)
        parts = torch.ops.aten.convolution_backward(
            above,
            input[:live],
            weight,
            [channels],
            [stride] * 2,
            [padding] * 2,
            [1, 1],
            transposed,
            [0, 0],
            1,
            needed,
        )
        for target, part, need in zip((grad_input[:live], grad_weight, grad_bias), parts, needed, strict=True):
            if need:
                target.copy_(part)
    return grad_input, grad_weight, grad_bias


@torch.library.register_fake("det_ops::convolution_rows", lib=LIBRARY)
def _(input, weight, _bias, _count, stride, padding, transposed, _relu):  # noqa: A002
    shape = _out_shape(input, weight, stride, padding, transposed)
    return input.new_empty_strided(shape, _channels_last(shape))


@torch.library.register_fake("det_ops::convolution_rows_backward", lib=LIBRARY)
def _(_grad, input, weight, _out, _count, _stride, _padding, transposed, needed):  # noqa: A002
    shape = tuple(input.shape)
    channels = weight.shape[1 if transposed else 0]
    return (
        input.new_empty_strided(shape, _channels_last(shape)) if needed[0] else input.new_empty((0,)),
        torch.empty_like(weight) if needed[1] else weight.new_empty((0,)),
        weight.new_empty((channels if needed[2] else 0,)),
    )


def _setup(ctx, inputs, output):
    input, weight, bias, count, stride, padding, transposed, relu = inputs  # noqa: A001
    ctx.save_for_backward(input, weight, output if relu else None, count)
    ctx.options = stride, padding, transposed
    ctx.biased = bias is not None


def _autograd(ctx, grad):
    needed = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], ctx.biased and ctx.needs_input_grad[2]]
    grads = torch.ops.det_ops.convolution_rows_backward(grad, *ctx.saved_tensors, *ctx.options, needed)
    grads = [grad if need else None for grad, need in zip(grads, needed, strict=True)]
    return *grads, None, None, None, None, None


torch.library.register_autograd("det_ops::convolution_rows", _autograd, setup_context=_setup, lib=LIBRARY)


@torch.library.impl(LIBRARY, "dot_rows", "CPU")
def _dot(input: Tensor, weight: Tensor, count: Tensor) -> Tensor:  # noqa: A002
    out = _zeros(tuple(input.shape[:2]), input.dtype)
    live = _live(count, len(input))
    if live:
        out[:live] = torch.bmm(input[:live], weight[:live, :, None]).squeeze(2)
    return out


@torch.library.impl(LIBRARY, "dot_rows_backward", "CPU")
def _dot_backward(
    grad: Tensor,
    input: Tensor,  # noqa: A002
    weight: Tensor,
    count: Tensor,
    needed: list[bool],
) -> tuple[Tensor, Tensor]:
    live = _live(count, len(input))
    grad_input, grad_weight = input.new_empty((0,)), weight.new_empty((0,))
    if needed[0]:
        grad_input = _zeros(tuple(input.shape), input.dtype)
        torch.mul(grad[:live, :, None], weight[:live, None], out=grad_input[:live])
    if needed[1]:
        grad_weight = weight.new_zeros(weight.shape)
        grad_weight[:live] = torch.bmm(grad[:live, None], input[:live]).squeeze(1)
    return grad_input, grad_weight


@torch.library.register_fake("det_ops::dot_rows", lib=LIBRARY)
def _(input, _weight, _count):  # noqa: A002
    return input.new_empty(input.shape[:2])


@torch.library.register_fake("det_ops::dot_rows_backward", lib=LIBRARY)
def _(_grad, input, weight, _count, needed):  # noqa: A002
    return input.new_empty(input.shape if needed[0] else (0,)), weight.new_empty(weight.shape if needed[1] else (0,))


def _dot_setup(ctx, inputs, output):  # noqa: ARG001 - the name is torch's
    ctx.save_for_backward(*inputs)


def _dot_autograd(ctx, grad):
    needed = list(ctx.needs_input_grad[:2])
    grads = torch.ops.det_ops.dot_rows_backward(grad, *ctx.saved_tensors, needed)
    return *(grad if need else None for grad, need in zip(grads, needed, strict=True)), None


torch.library.register_autograd("det_ops::dot_rows", _dot_autograd, setup_context=_dot_setup, lib=LIBRARY)

for _name, _dense in (("convolution_rows", "dense convolution"), ("dot_rows", "batched matrix product")):
    _kernels.register(_name, "cpu", "torch", "oneDNN on the live rows; the count is read inside the operator")
    for _device in ("cuda", "npu"):
        _kernels.register(_name, _device, "torch", f"{_dense} and a row mask: no host read")
