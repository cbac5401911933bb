"""Convolution of the first rows of a padded batch.

A mask head has room for every region that may be positive, and most often few are. The shapes stay static; the number
of live rows is a tensor, and on the CPU the kernel reads it and computes those rows alone.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from det_ops import _kernels
from det_ops._checks import check_device, describe, expect
from det_ops._kernels import LIBRARY

__all__ = ["convolution_rows"]

LIBRARY.define(
    "convolution_rows(Tensor input, Tensor weight, Tensor? bias, Tensor count, int stride, int padding, "
    "bool transposed) -> Tensor"
)
LIBRARY.define(
    "convolution_rows_backward(Tensor grad, Tensor input, Tensor weight, Tensor count, int stride, int padding, "
    "bool transposed, bool[] needed) -> (Tensor, Tensor, Tensor)"
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
    expect(count.shape == () and count.dtype == torch.int64, "count", "an int64 Tensor[]", count)
    for tensor, name in ((weight, "weight"), (bias, "bias"), (count, "count")):
        if tensor is not None:
            check_device(tensor, name, input, "input")
    kind = input.device.type
    if torch.is_autocast_enabled(kind) and input.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(kind)
        input, weight, bias = input.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)  # noqa: A001
    if kind == "cpu" and _kernels.native(input):
        return torch.ops.det_ops.convolution_rows(input, weight, bias, count, stride, padding, transposed)
    return _dense(input, weight, bias, count, stride, padding, transposed)


def _dense(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    bias: Tensor | None,
    count: Tensor,
    stride: int,
    padding: int,
    transposed: bool,
) -> Tensor:
    """All rows, then a mask: one static sequence of differentiable operators."""
    convolution = F.conv_transpose2d if transposed else F.conv2d
    out = convolution(input, weight, bias, stride, padding)
    live = torch.arange(input.shape[0], device=input.device) < count
    return torch.where(live[:, None, None, None], out, 0.0)


def _size(extent: int, kernel: int, stride: int, padding: int, transposed: bool) -> int:
    if transposed:
        return (extent - 1) * stride - 2 * padding + kernel
    return (extent + 2 * padding - kernel) // stride + 1


def _empty(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    stride: int,
    padding: int,
    transposed: bool,
) -> Tensor:
    n, _, h, w = input.shape
    h, w = (_size(s, k, stride, padding, transposed) for s, k in zip((h, w), weight.shape[2:], strict=True))
    c = weight.shape[1 if transposed else 0]
    return torch.empty_strided((n, c, h, w), (h * w * c, 1, w * c, c), dtype=input.dtype, device=input.device)


def _live(count: Tensor, rows: int) -> int:
    return min(max(int(count), 0), rows)


@torch.library.impl(LIBRARY, "convolution_rows", "CompositeExplicitAutograd")
def _forward(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    bias: Tensor | None,
    count: Tensor,
    stride: int,
    padding: int,
    transposed: bool,
) -> Tensor:
    out = _empty(input, weight, stride, padding, transposed)
    live = _live(count, len(input))
    if live:
        out[:live] = torch.convolution(
            input[:live], weight, bias, [stride] * 2, [padding] * 2, [1, 1], transposed, [0, 0], 1
        )
    out[live:] = 0
    return out


@torch.library.impl(LIBRARY, "convolution_rows_backward", "CompositeExplicitAutograd")
def _backward(
    grad: Tensor,
    input: Tensor,  # noqa: A002
    weight: Tensor,
    count: Tensor,
    stride: int,
    padding: int,
    transposed: bool,
    needed: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    live = _live(count, len(input))
    grad_input, grad_weight, grad_bias = _empty_gradients(input, weight, transposed, needed)
    grad_input[live:] = 0
    if not live:
        return grad_input, grad_weight.zero_(), grad_bias.zero_()
    parts = torch.ops.aten.convolution_backward(
        grad[:live],
        input[:live],
        weight,
        [weight.shape[1 if transposed else 0]],
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


def _empty_gradients(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    transposed: bool,
    needed: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Memory for the gradients of input, weight and bias; empty tensors for those not needed."""
    n, c, h, w = input.shape
    channels = weight.shape[1 if transposed else 0]
    return (
        torch.empty_strided((n, c, h, w), (h * w * c, 1, w * c, c), dtype=input.dtype, device=input.device)
        if needed[0]
        else input.new_empty((0,)),
        weight.new_empty(weight.shape if needed[1] else (0,)),
        weight.new_empty((channels if needed[2] else 0,)),
    )


@torch.library.register_fake("det_ops::convolution_rows", lib=LIBRARY)
def _(input, weight, _bias, _count, stride, padding, transposed):  # noqa: A002
    return _empty(input, weight, stride, padding, transposed)


@torch.library.register_fake("det_ops::convolution_rows_backward", lib=LIBRARY)
def _(_grad, input, weight, _count, _stride, _padding, transposed, needed):  # noqa: A002
    return _empty_gradients(input, weight, transposed, needed)


def _setup(ctx, inputs, output):  # noqa: ARG001 - the name is torch's
    input, weight, bias, count, stride, padding, transposed = inputs  # noqa: A001
    ctx.save_for_backward(input, weight, count)
    ctx.options = stride, padding, transposed
    ctx.biased = bias is not None


def _autograd(ctx, grad):
    needed = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], ctx.biased and ctx.needs_input_grad[2]]
    grads = torch.ops.det_ops.convolution_rows_backward(grad, *ctx.saved_tensors, *ctx.options, needed)
    grads = [grad if need else None for grad, need in zip(grads, needed, strict=True)]
    return *grads, None, None, None, None


torch.library.register_autograd("det_ops::convolution_rows", _autograd, setup_context=_setup, lib=LIBRARY)

_kernels.register("convolution_rows", "cpu", "torch", "oneDNN on the live rows; the count is read inside the operator")
for _device in ("cuda", "npu"):
    _kernels.register("convolution_rows", _device, "torch", "dense convolution and a row mask: no host read")
