"""Deformable convolution: a convolution whose taps move, and are weighted, per output pixel.

`B` images, `C` channels in, `O` channels out, `G` groups, `D` groups of channels that share offsets, `k_h, k_w` kernel,
`H', W'` output. Source: Deformable ConvNets (Dai et al., 2017), and v2 (Zhu et al., 2019) with a mask.
"""

import torch
from torch import Tensor

from det_ops._autocast import in_autocast
from det_ops._checks import check_device, check_shape, describe, expect
from det_ops._layout import empty_nhwc
from det_ops._operator import operator
from det_ops.reference import deform_conv as reference


def deform_conv2d(
    input: Tensor,  # noqa: A002 - torchvision's name
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    mask: Tensor | None = None,
) -> Tensor:
    """Deformable convolution, as `torchvision.ops.deform_conv2d`; modulated (v2) if there is a mask.

    Sampling is bilinear with zeros around the map. Only the arguments are kept for the backward pass, which samples
    again instead of keeping the samples in memory.

    Args:
        input: `[B, C, H, W]` floating; channels-last memory is read without a copy.
        offset: `[B, 2 * D * k_h * k_w, H', W']` floating: for each group and then each tap, the rows and the columns
            of the map by which the tap is moved. The number of groups D follows from it.
        weight: `[O, C / G, k_h, k_w]`, dtype of `input`. The number of groups G follows from it.
        bias: `[O]`, dtype of `input`, or None.
        stride: Of rows and columns, or of both.
        padding: Zeros around the map, of rows and columns, or of both.
        dilation: Distance of taps, of rows and columns, or of both.
        mask: `[B, D * k_h * k_w, H', W']` floating, factors of the samples (their sigmoid is taken by the caller), or
            None for v1.

    Returns:
        `[B, O, H', W']`, dtype of `input` (autocast's under autocast, where offset and mask stay as they are),
        channels-last in memory. bfloat16 and float16 are sampled in float32. Gradients for all five tensors. A sample
        whose place is not finite is zero.

    Raises:
        ValueError: An argument has the wrong shape, dtype or device.
    """
    input, weight, bias = in_autocast(input, weight, bias)  # noqa: A001
    steps = [[value, value] if isinstance(value, int) else list(value) for value in (stride, padding, dilation)]
    _check(input, offset, mask, weight, bias, *steps)
    return _deform_conv2d(input, offset, mask, weight, bias, *steps)


def _check(
    input: Tensor,  # noqa: A002
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> None:
    expect(input.ndim == 4 and input.is_floating_point(), "input", "a floating Tensor[B, C, H, W]", input)
    batch, channels = input.shape[:2]
    expect(
        weight.ndim == 4
        and 0 not in weight.shape
        and channels % weight.shape[1] == 0
        and weight.shape[0] % max(channels // weight.shape[1], 1) == 0,
        "weight",
        f"Tensor[O, {channels} / G, k_h, k_w] where the groups G divide {channels} and O",
        weight,
    )
    for name, value, least in (("stride", stride, 1), ("padding", padding, 0), ("dilation", dilation, 1)):
        expect(len(value) == 2 and min(value) >= least, name, f"one or two integers, at least {least}", value)
    out = [
        (size + 2 * around - step * (side - 1) - 1) // pace + 1
        for size, around, step, side, pace in zip(
            input.shape[2:], padding, dilation, weight.shape[2:], stride, strict=True
        )
    ]
    expect(min(out) >= 1, "input", f"as large as the kernel {list(weight.shape[2:])} at least", input)
    taps = weight.shape[2] * weight.shape[3]
    groups = offset.shape[1] // (2 * taps) if offset.ndim == 4 else 0
    if (
        offset.shape != (batch, 2 * taps * groups, *out)
        or groups == 0
        or channels % groups
        or not offset.is_floating_point()
    ):
        raise ValueError(
            f"offset must be a floating Tensor{[batch, f'D * {2 * taps}', *out]} where the groups D divide {channels}, "
            f"got {describe(offset)}"
        )
    if mask is not None:
        check_shape(mask, "mask", (batch, taps * groups, *out))
        expect(mask.is_floating_point(), "mask", "floating", mask)
    if bias is not None:
        check_shape(bias, "bias", weight.shape[:1])
    for tensor, name in ((weight, "weight"), (bias, "bias")):
        if tensor is not None and tensor.dtype != input.dtype:
            raise ValueError(f"{name} must be of the dtype of input, {input.dtype}, got {describe(tensor)}")
    for tensor, name in ((offset, "offset"), (mask, "mask"), (weight, "weight"), (bias, "bias")):
        if tensor is not None:
            check_device(tensor, name, input, "input")


@operator(
    "deform_conv2d(Tensor input, Tensor offset, Tensor? mask, Tensor weight, Tensor? bias, SymInt[] stride, "
    "SymInt[] padding, SymInt[] dilation) -> Tensor",
    reference=reference.deform_conv2d,
    functions=["deform_conv2d"],
    fallback="four gathers and a matrix product, static, no host read",
)
def _deform_conv2d(input, offset, _mask, weight, _bias, _stride, _padding, _dilation):  # noqa: A002
    return empty_nhwc(input, input.shape[0], weight.shape[0], *offset.shape[2:])


def _save(ctx, inputs, output):  # noqa: ARG001 - the name is torch's
    *tensors, bias, stride, padding, dilation = inputs
    ctx.save_for_backward(*tensors)
    ctx.steps = stride, padding, dilation
    ctx.bias = None if bias is None else bias.dtype


def _apply(ctx, grad):
    want_input, want_offset, want_mask, want_weight, want_bias, *_ = ctx.needs_input_grad
    needed = [want_input, want_offset, want_mask, want_weight]
    grads = [None] * 4
    if any(needed):
        found = _deform_conv2d_backward(grad, *ctx.saved_tensors, *ctx.steps, needed)
        grads = [part if wanted else None for part, wanted in zip(found, needed, strict=True)]
    return *grads, grad.sum((0, 2, 3)) if want_bias else None, None, None, None


@_deform_conv2d.gradient(
    "deform_conv2d_backward(Tensor grad, Tensor input, Tensor offset, Tensor? mask, Tensor weight, SymInt[] stride, "
    "SymInt[] padding, SymInt[] dilation, bool[] needed) -> (Tensor, Tensor, Tensor, Tensor)",
    reference=reference.deform_conv2d_backward,
    save=_save,
    apply=_apply,
)
def _deform_conv2d_backward(_grad, input, offset, mask, weight, _stride, _padding, _dilation, needed):  # noqa: A002
    batch, channels, height, width = input.shape
    return (
        empty_nhwc(input, batch, channels, height, width) if needed[0] else input.new_empty(0),
        torch.empty_like(offset, memory_format=torch.contiguous_format) if needed[1] else input.new_empty(0),
        torch.empty_like(mask, memory_format=torch.contiguous_format)
        if needed[2] and mask is not None
        else input.new_empty(0),
        torch.empty_like(weight, memory_format=torch.contiguous_format) if needed[3] else input.new_empty(0),
    )
