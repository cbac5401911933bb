"""Convolutions of the first rows of a padded batch. For the packages of this repository: nothing here is promised.

A mask head has room for every region that may be positive, but most often few are. The shapes stay static; the number
of live rows is a tensor, which the CPU's kernel reads, to compute those rows alone. Elsewhere all rows are computed,
and masked.

`R` rows, one a region; `C` channels in, `O` or `D` channels out, `k` side of a kernel, `H, W` map, `H', W'` output.
"""

import torch
from torch import Tensor

from det_ops._autocast import in_autocast
from det_ops._checks import check_device, check_shape, expect
from det_ops._layout import empty_nhwc, empty_nhwc_like
from det_ops._operator import operator
from det_ops.reference import live_rows as reference

__all__ = ["convolution_rows", "mask_logits_rows"]

_TWICE = "; det_ops.kernels('reference') is PyTorch's, which is twice"


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
        input: `[R, C, H, W]` floating.
        weight: `[O, C, k, k]`.
        bias: `[O]` or None.
        count: int64 scalar `[]`, number of live rows (values outside 0..R are clamped).
        stride: Stride in both directions.
        padding: Zero padding on all sides.
        relu: Apply a rectifier to the live rows of the result.

    Returns:
        `[R, O, H', W']`, dtype of `input` (autocast's under autocast). Dead rows get and give no gradient; on devices
        other than the CPU they are computed and masked, so their input must be finite. Small maps may be filtered
        together (see :func:`~det_ops.conv2d`): then a row's rounding, and whether it is finite, depend on the rows
        beside it too.

    Raises:
        ValueError: An argument has the wrong shape, dtype or device.
    """
    expect(input.ndim == 4 and input.is_floating_point(), "input", "a floating Tensor[R, C, H, W]", input)
    expect(
        weight.ndim == 4 and weight.shape[1] == input.shape[1],
        "weight",
        f"a Tensor[O, {input.shape[1]}, k, k]",
        weight,
    )
    if bias is not None:
        check_shape(bias, "bias", weight.shape[:1])
    _check(input, count, weight=weight, bias=bias)
    input, weight, bias = in_autocast(input, weight, bias)  # noqa: A001
    return _convolution_rows(input, weight, bias, count, stride, padding, relu)


@operator(
    "convolution_rows(Tensor input, Tensor weight, Tensor? bias, Tensor count, int stride, int padding, bool relu) "
    "-> Tensor",
    reference=reference.convolution_rows,
    functions=["convolution_rows"],
    fallback="dense convolution and a row mask: no host read",
    inline=True,
)
def _convolution_rows(input, weight, _bias, _count, stride, padding, _relu):  # noqa: A002
    return empty_nhwc(input, *reference.out_shape(input, weight, stride, padding))


def _save_convolution(ctx, inputs, output):
    input, weight, bias, count, stride, padding, relu = inputs  # noqa: A001
    ctx.save_for_backward(input, weight, output if relu else None, count)
    ctx.options = stride, padding
    ctx.biased = bias is not None


def _apply_convolution(ctx, grad):
    needed = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], ctx.biased and ctx.needs_input_grad[2]]
    grads = _convolution_rows_backward(grad, *ctx.saved_tensors, *ctx.options, needed)
    grads = [grad if need else None for grad, need in zip(grads, needed, strict=True)]
    return *grads, None, None, None, None


@_convolution_rows.gradient(
    "convolution_rows_backward(Tensor grad, Tensor input, Tensor weight, Tensor? out, Tensor count, int stride, "
    "int padding, bool[] needed) -> (Tensor, Tensor, Tensor)",
    reference=reference.convolution_rows_backward,
    save=_save_convolution,
    apply=_apply_convolution,
    twice=_TWICE,
)
def _convolution_rows_backward(_grad, input, weight, _out, _count, _stride, _padding, needed):  # noqa: A002
    return (
        empty_nhwc_like(input) if needed[0] else input.new_empty((0,)),
        torch.empty_like(weight) if needed[1] else weight.new_empty((0,)),
        weight.new_empty((len(weight) if needed[2] else 0,)),
    )


def mask_logits_rows(
    input: Tensor,  # noqa: A002 - torch's name
    weight: Tensor,
    bias: Tensor | None,
    own: Tensor,
    count: Tensor,
) -> Tensor:
    """Last layers of a mask head, for the class of each region: upsampling by 2, rectifier, inner product with weights.

    They are `conv_transpose2d(input, weight, bias, stride=2).relu()`, and a 1x1 convolution to one channel with other
    weights in every row. The first `count` rows are computed; the other rows of the result are zero. On the CPU the
    upsampled features, the largest maps of a detector, stay in the cache; the backward pass computes them again.

    Args:
        input: `[R, C, H, W]` floating.
        weight: `[C, D, 2, 2]` of the transposed convolution.
        bias: `[D]` or None.
        own: `[R, D]`, the predictor's weights of each row's class.
        count: int64 scalar `[]`, number of live rows (values outside 0..R are clamped).

    Returns:
        `[R, 2H, 2W]`, dtype of `input` (autocast's under autocast). Dead rows get and give no gradient; on devices
        other than the CPU they are computed and masked, so they must be finite. Source: Mask R-CNN (He et al., 2017),
        figure 4 right.

    Raises:
        ValueError: An argument has the wrong shape, dtype or device.
    """
    expect(input.ndim == 4 and input.is_floating_point(), "input", "a floating Tensor[R, C, H, W]", input)
    rows, channels = input.shape[:2]
    expect(
        weight.ndim == 4 and weight.shape[0] == channels and weight.shape[2:] == (2, 2),
        "weight",
        f"a Tensor[{channels}, D, 2, 2]",
        weight,
    )
    if bias is not None:
        check_shape(bias, "bias", weight.shape[1:2])
    check_shape(own, "own", (rows, weight.shape[1]))
    _check(input, count, weight=weight, bias=bias, own=own)
    input, weight, bias, own = in_autocast(input, weight, bias, own)  # noqa: A001
    return _mask_logits_rows(input, weight, bias, own, count)


@operator(
    "mask_logits_rows(Tensor input, Tensor weight, Tensor? bias, Tensor own, Tensor count) -> Tensor",
    reference=reference.mask_logits_rows,
    functions=["mask_logits_rows"],
    fallback="dense and a row mask: no host read",
    inline=True,
)
def _mask_logits_rows(input, _weight, _bias, _own, _count):  # noqa: A002
    rows, _, height, width = input.shape
    return input.new_empty((rows, 2 * height, 2 * width))


def _save_logits(ctx, inputs, output):  # noqa: ARG001 - the name is torch's
    ctx.save_for_backward(*inputs)


def _apply_logits(ctx, grad):
    grads = _mask_logits_rows_backward(grad, *ctx.saved_tensors)
    return *(part if need else None for part, need in zip(grads, ctx.needs_input_grad, strict=False)), None


@_mask_logits_rows.gradient(
    "mask_logits_rows_backward(Tensor grad, Tensor input, Tensor weight, Tensor? bias, Tensor own, Tensor count) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    reference=reference.mask_logits_rows_backward,
    save=_save_logits,
    apply=_apply_logits,
    twice=_TWICE,
)
def _mask_logits_rows_backward(_grad, input, weight, _bias, own, _count):  # noqa: A002
    return (
        empty_nhwc_like(input),
        torch.empty_like(weight),
        weight.new_empty((weight.shape[1],)),
        torch.empty_like(own),
    )


def _check(input: Tensor, count: Tensor, **others: Tensor | None) -> None:  # noqa: A002 - torch's name
    """Raise ValueError unless `count` is an int64 scalar, and it and `others` are on the device of `input`."""
    expect(count.shape == () and count.dtype == torch.int64, "count", "an int64 Tensor[]", count)
    for name, tensor in {"count": count, **others}.items():
        if tensor is not None:
            check_device(tensor, name, input, "input")
