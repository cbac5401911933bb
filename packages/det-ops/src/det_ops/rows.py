"""Convolutions of the first rows of a padded batch.

A mask head has room for every region that may be positive, and most often few are. The shapes stay static; the number
of live rows is a tensor, and on the CPU the kernel reads it and computes those rows alone.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from det_ops import _live_rows as live_rows
from det_ops._checks import check_shape, expect
from det_ops._layout import empty_nhwc
from det_ops.backends import LIBRARY
from det_ops.backends.cpu import winograd as _winograd

__all__ = ["convolution_rows"]

LIBRARY.define(
    "convolution_rows(Tensor input, Tensor weight, Tensor? bias, Tensor count, int stride, int padding, bool relu) "
    "-> Tensor"
)
LIBRARY.define(
    "convolution_rows_backward(Tensor grad, Tensor input, Tensor weight, Tensor? out, Tensor count, int stride, "
    "int padding, bool[] needed) -> (Tensor, Tensor, Tensor)"
)


def convolution_rows(
    input: Tensor,  # noqa: A002 - torch's name
    weight: Tensor,
    bias: Tensor | None,
    count: Tensor,
    *,
    stride: int = 1,
    padding: int = 0,
    relu: bool = False,
) -> Tensor:
    """Convolution of the first `count` rows of the batch; the other rows of the result are zero.

    Args:
        input: `[N, C, H, W]` floating.
        weight: `[C_out, C, k, k]`.
        bias: `[C_out]` or None.
        count: `[]` int64, number of live rows (values beyond 0..N are clamped).
        stride: Stride in both directions.
        padding: Zero padding on all sides.
        relu: Follow it by a rectifier, which would else touch the dead rows too.

    Returns:
        `[N, C_out, H', W']`, of autocast's dtype under autocast. Dead rows get and give no gradient; on devices other
        than the CPU they are computed and masked, so their input must be finite. Small maps may be filtered together,
        see :func:`~det_ops.conv2d`: then how a row is rounded, and whether it is finite, depends on its neighbours too.

    Raises:
        ValueError: An argument has the wrong shape, dtype or device.
    """
    expect(input.ndim == 4 and input.is_floating_point(), "input", "a floating Tensor[N, C, H, W]", input)
    expect(
        weight.ndim == 4 and weight.shape[1] == input.shape[1],
        "weight",
        f"a Tensor[C_out, {input.shape[1]}, k, k]",
        weight,
    )
    if bias is not None:
        check_shape(bias, "bias", weight.shape[:1])
    live_rows.check(input, count, weight=weight, bias=bias)
    input, weight, bias = live_rows.autocast(input, weight, bias)  # noqa: A001
    if live_rows.native(input):
        return torch.ops.det_ops.convolution_rows(input, weight, bias, count, stride, padding, relu)
    # All rows, then a mask: one static sequence of differentiable operators.
    out = F.conv2d(input, weight, bias, stride, padding)
    out = torch.where(live_rows.mask(input, count)[:, None, None, None], out, 0.0)
    return F.relu_(out) if relu else out


def _out_shape(input: Tensor, weight: Tensor, stride: int, padding: int) -> tuple[int, int, int, int]:  # noqa: A002
    height, width = (
        (size + 2 * padding - side) // stride + 1 for size, side in zip(input.shape[2:], weight.shape[2:], strict=True)
    )
    return len(input), len(weight), height, width


@torch.library.impl(LIBRARY, "convolution_rows", "CPU")
def _forward(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    bias: Tensor | None,
    count: Tensor,
    stride: int,
    padding: int,
    relu: bool,
) -> Tensor:
    live, around = live_rows.number(count, len(input)), (padding, padding)
    out = live_rows.allocate(_out_shape(input, weight, stride, padding), input.dtype, live)
    rows, found = input[:live], out[:live]
    if stride == 1 and _winograd.suits(rows, weight, bias, around):
        _winograd.forward(rows, weight, bias, around, relu=relu, share=True, out=found)
    elif live:
        found.copy_(torch.convolution(rows, weight, bias, [stride] * 2, around, [1, 1], False, [0, 0], 1))
        if relu:
            found.relu_()
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
    needed: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    live, around = live_rows.number(count, len(input)), (padding, padding)
    grad_input = live_rows.allocate(input.shape, input.dtype, live) if needed[0] else input.new_empty((0,))
    # Laid out as the weight is, so that nobody copies it again.
    grad_weight = torch.zeros_like(weight) if needed[1] else weight.new_empty((0,))
    grad_bias = weight.new_zeros((len(weight) if needed[2] else 0,))
    rows = input[:live]
    above = grad[:live] if out is None else torch.ops.aten.threshold_backward(grad[:live], out[:live], 0)
    if stride == 1 and _winograd.suits(rows, weight, None, around):
        _, grad_weight = _winograd.backward(above, rows, weight, around, needed[:2], share=True, out=grad_input[:live])
        if needed[2]:
            grad_bias = above.sum((0, 2, 3))
    elif live:
        parts = torch.ops.aten.convolution_backward(
            above, rows, weight, [len(weight)], [stride] * 2, around, [1, 1], False, [0, 0], 1, needed
        )
        for target, part, need in zip((grad_input[:live], grad_weight, grad_bias), parts, needed, strict=True):
            if need:
                target.copy_(part)
    return grad_input, grad_weight, grad_bias


@torch.library.register_fake("det_ops::convolution_rows", lib=LIBRARY)
def _(input, weight, _bias, _count, stride, padding, _relu):  # noqa: A002
    shape = _out_shape(input, weight, stride, padding)
    return empty_nhwc(input, *shape)


@torch.library.register_fake("det_ops::convolution_rows_backward", lib=LIBRARY)
def _(_grad, input, weight, _out, _count, _stride, _padding, needed):  # noqa: A002
    return (
        empty_nhwc(input, *input.shape) if needed[0] else input.new_empty((0,)),
        torch.empty_like(weight) if needed[1] else weight.new_empty((0,)),
        weight.new_empty((len(weight) if needed[2] else 0,)),
    )


def _setup(ctx, inputs, output):
    input, weight, bias, count, stride, padding, relu = inputs  # noqa: A001
    ctx.save_for_backward(input, weight, output if relu else None, count)
    ctx.options = stride, padding
    ctx.biased = bias is not None


def _autograd(ctx, grad):
    needed = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], ctx.biased and ctx.needs_input_grad[2]]
    grads = torch.ops.det_ops.convolution_rows_backward(grad, *ctx.saved_tensors, *ctx.options, needed)
    grads = [grad if need else None for grad, need in zip(grads, needed, strict=True)]
    return *grads, None, None, None, None


torch.library.register_autograd("det_ops::convolution_rows", _autograd, setup_context=_setup, lib=LIBRARY)

live_rows.register(
    "convolution_rows",
    "C++",
    "the live rows alone, as conv2d; the count is read inside the operator",
    "dense convolution",
)
