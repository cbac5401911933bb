"""Convolutions of the live rows of a padded batch on the CPU, which reads their number.

`R` rows, `r` of them live.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from det_ops._layout import nhwc
from det_ops.backends.cpu import TYPES, address, function, winograd
from det_ops.reference.live_rows import Upsampling, fill_gradients, out_shape


def convolution_rows(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    bias: Tensor | None,
    count: Tensor,
    stride: int,
    padding: int,
    relu: bool,
) -> Tensor:
    """`[R, O, H', W']`, channels-last."""
    live, around = _number(count, len(input)), (padding, padding)
    out = _allocate(out_shape(input, weight, stride, padding), input.dtype, live)
    rows, found = input[:live], out[:live]
    if stride == 1 and winograd.suits(rows, weight, bias, around):
        winograd.forward(rows, weight, bias, around, relu=relu, share=True, out=found)
    elif live:
        found.copy_(torch.convolution(rows, weight, bias, [stride] * 2, around, [1, 1], False, [0, 0], 1))
        if relu:
            found.relu_()
    return out


def convolution_rows_backward(
    grad: Tensor,
    input: Tensor,  # noqa: A002
    weight: Tensor,
    out: Tensor | None,
    count: Tensor,
    stride: int,
    padding: int,
    needed: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of input, channels-last, weight and bias; empty for those not needed."""
    live, around = _number(count, len(input)), (padding, padding)
    grad_input = _allocate(input.shape, input.dtype, live) if needed[0] else input.new_empty((0,))
    # Laid out as the weight is, so that nobody copies it again.
    grad_weight = torch.zeros_like(weight) if needed[1] else weight.new_empty((0,))
    grad_bias = weight.new_zeros((len(weight) if needed[2] else 0,))
    rows = input[:live]
    above = grad[:live] if out is None else torch.ops.aten.threshold_backward(grad[:live], out[:live], 0)
    if stride == 1 and winograd.suits(rows, weight, None, around):
        _, grad_weight = winograd.backward(above, rows, weight, around, needed[:2], share=True, out=grad_input[:live])
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


def mask_logits_rows(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    bias: Tensor | None,
    own: Tensor,
    count: Tensor,
) -> Tensor:
    """`[R, 2H, 2W]`; by C++ in float32 and float64, else by PyTorch."""
    rows, _, height, width = input.shape
    out = input.new_zeros((rows, 2 * height, 2 * width))
    live = _number(count, rows)
    if input.dtype in TYPES and all(t is None or t.dtype == input.dtype for t in (weight, bias, own)):
        _fill(out[:live], nhwc(input[:live]), weight, bias, own.contiguous())
        return out
    upsampling = Upsampling(input[:live], weight, bias)
    for part in upsampling.parts():
        logits = torch.bmm(upsampling.hidden(part), own[:live][part, :, None])
        blocks = upsampling.blocks(out[:live][part])
        blocks.copy_(logits.view(blocks.shape))
    return out


def _fill(out: Tensor, pixels: Tensor, weight: Tensor, bias: Tensor | None, own: Tensor) -> None:
    """The C++ kernel: fill `out [r, 2H, 2W]` from `pixels [r, H, W, C]`."""
    regions, height, width, depth = pixels.shape
    channels, dtype, threads = weight.shape[1], pixels.dtype, torch.get_num_threads()
    panels = weight.new_empty(function("mask_logits_panels_size", dtype)(depth, channels))
    function("mask_logits_pack", dtype)(depth, channels, weight.data_ptr(), weight.stride(), threads, panels.data_ptr())
    bias = None if bias is None else bias.contiguous()
    function("mask_logits", dtype)(
        regions,
        height,
        width,
        depth,
        channels,
        pixels.data_ptr(),
        panels.data_ptr(),
        address(bias),
        own.data_ptr(),
        threads,
        out.data_ptr(),
    )


def mask_logits_rows_backward(
    grad: Tensor,
    input: Tensor,  # noqa: A002
    weight: Tensor,
    bias: Tensor | None,
    own: Tensor,
    count: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of input, channels-last, weight, bias and own."""
    live = _number(count, len(input))
    grad_input, grad_own = _allocate(input.shape, input.dtype, live), torch.zeros_like(own)
    grad_weight, grad_bias = fill_gradients(
        grad[:live], input[:live], weight, bias, own[:live], grad_input[:live], grad_own[:live]
    )
    return grad_input, grad_weight, grad_bias, grad_own


def _number(count: Tensor, rows: int) -> int:
    """`count` on the host, within 0..R."""
    return min(max(int(count), 0), rows)


def _allocate(shape: Sequence[int], dtype: torch.dtype, live: int) -> Tensor:
    """`[R, C, H, W]`, channels-last, whose first `live` rows are to be filled; the others are zero."""
    n, c, h, w = shape
    out = torch.empty((n, h, w, c), dtype=dtype).permute(0, 3, 1, 2)
    out[live:].zero_()
    return out
