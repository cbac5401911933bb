"""The end of a mask head, of the first rows of a padded batch."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from det_ops import _live_rows as live_rows
from det_ops._checks import check_shape, expect
from det_ops._layout import empty_nhwc, nhwc
from det_ops.backends import KERNEL_TYPES, LIBRARY, kernel

__all__ = ["mask_logits_rows"]

LIBRARY.define("mask_logits_rows(Tensor input, Tensor weight, Tensor? bias, Tensor own, Tensor count) -> Tensor")
LIBRARY.define(
    "mask_logits_rows_backward(Tensor grad, Tensor input, Tensor weight, Tensor? bias, Tensor own, Tensor count) "
    "-> (Tensor, Tensor, Tensor, Tensor)"
)


def mask_logits_rows(
    input: Tensor,  # noqa: A002 - torch's name
    weight: Tensor,
    bias: Tensor | None,
    own: Tensor,
    count: Tensor,
) -> Tensor:
    """The end of a mask head for the class of each region: upsampling by 2, rectifier, inner product with its weights.

    That is `conv_transpose2d(input, weight, bias, stride=2).relu()` and a 1x1 convolution to one channel with weights
    of its own in every row. Of the first `count` rows; the other rows of the result are zero. On the CPU the upsampled
    features, the largest maps of a detector, stay in the cache; the backward pass computes them again.

    Args:
        input: `[N, C, H, W]` floating.
        weight: `[C, D, 2, 2]` of the transposed convolution.
        bias: `[D]` or None.
        own: `[N, D]`, the predictor's weights of each row's class.
        count: `[]` int64, number of live rows (values beyond 0..N are clamped).

    Returns:
        `[N, 2H, 2W]`, of autocast's dtype under autocast. Dead rows get and give no gradient; on devices other than the
        CPU they are computed and masked, so they must be finite. Source: Mask R-CNN (He et al., 2017), figure 4 right.

    Raises:
        ValueError: An argument has the wrong shape, dtype or device.
    """
    expect(input.ndim == 4 and input.is_floating_point(), "input", "a floating Tensor[N, C, H, W]", input)
    rows, channels, height, width = input.shape
    expect(
        weight.ndim == 4 and weight.shape[0] == channels and weight.shape[2:] == (2, 2),
        "weight",
        f"a Tensor[{channels}, D, 2, 2]",
        weight,
    )
    if bias is not None:
        check_shape(bias, "bias", weight.shape[1:2])
    check_shape(own, "own", (rows, weight.shape[1]))
    live_rows.check(input, count, weight=weight, bias=bias, own=own)
    input, weight, bias, own = live_rows.autocast(input, weight, bias, own)  # noqa: A001
    if live_rows.native(input):
        return torch.ops.det_ops.mask_logits_rows(input, weight, bias, own, count)
    # Each pixel of the upsampled map sees one pixel: a 1x1 convolution to four times the channels, and only the logits
    # need to be put in their places.
    taps = weight.permute(2, 3, 1, 0).flatten(0, 2)[..., None, None]  # [4D, C, 1, 1]
    hidden = F.relu_(F.conv2d(input, taps, None if bias is None else bias.repeat(4)))
    hidden = hidden.permute(0, 2, 3, 1).reshape(rows, height * width * 4, weight.shape[1])
    logits = torch.bmm(hidden, own[:, :, None]).squeeze(2)
    # Without a gradient of theirs, dead rows give none to what they were computed from.
    logits = torch.where(live_rows.mask(input, count)[:, None], logits, 0.0)
    logits = logits.view(rows, height, width, 2, 2)
    return logits.transpose(2, 3).reshape(rows, 2 * height, 2 * width)


_CACHED = 4 << 20
"""Bytes of upsampled features at a time."""


class _Upsampling:
    """Upsampled features of a few live rows at a time: a matrix product to the 2x2 pixels that each pixel becomes.

    Args:
        input: `[n, C, H, W]`, the live rows.
        weight: `[C, D, 2, 2]`.
        bias: `[D]` or None.
    """

    def __init__(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> None:  # noqa: A002
        self.pixels = nhwc(input).flatten(1, 2)  # [n, H * W, C]
        self.matrix = weight.permute(0, 2, 3, 1).flatten(1)  # [C, 4D]
        self.bias = None if bias is None else bias.repeat(4)
        self.size = (input.shape[2], input.shape[3])

    def parts(self) -> Iterator[slice]:
        """Rows at a time."""
        _, pixels, _ = self.pixels.shape
        step = max(1, _CACHED // max(pixels * self.matrix.shape[1] * self.matrix.element_size(), 1))
        for begin in range(0, len(self.pixels), step):
            yield slice(begin, begin + step)

    def inputs(self, part: slice) -> Tensor:
        """`[m * H * W, C]`."""
        return self.pixels[part].flatten(0, 1)

    def hidden(self, part: slice) -> Tensor:
        """`[m, H * W * 4, D]`, rectified."""
        rows = self.inputs(part)
        found = rows @ self.matrix if self.bias is None else torch.addmm(self.bias, rows, self.matrix)
        return found.relu_().view(-1, self.pixels.shape[1] * 4, self.matrix.shape[1] // 4)

    def blocks(self, logits: Tensor) -> Tensor:
        """The view `[m, H, W, 2, 2]` of `[m, 2H, 2W]`."""
        height, width = self.size
        return logits.unflatten(2, (width, 2)).unflatten(1, (height, 2)).transpose(2, 3)


@torch.library.impl(LIBRARY, "mask_logits_rows", "CPU")
def _mask_logits(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    bias: Tensor | None,
    own: Tensor,
    count: Tensor,
) -> Tensor:
    rows, _, height, width = input.shape
    out = input.new_zeros((rows, 2 * height, 2 * width))
    live = live_rows.number(count, rows)
    if input.dtype in KERNEL_TYPES and all(t is None or t.dtype == input.dtype for t in (weight, bias, own)):
        _fill(out[:live], nhwc(input[:live]), weight, bias, own.contiguous())
        return out
    upsampling = _Upsampling(input[:live], weight, bias)
    for part in upsampling.parts():
        logits = torch.bmm(upsampling.hidden(part), own[:live][part, :, None])
        blocks = upsampling.blocks(out[:live][part])
        blocks.copy_(logits.view(blocks.shape))
    return out


def _fill(out: Tensor, pixels: Tensor, weight: Tensor, bias: Tensor | None, own: Tensor) -> None:
    """The C++ kernel: fill `out [n, 2H, 2W]` from `pixels [n, H, W, C]`."""
    regions, height, width, depth = pixels.shape
    channels, dtype, threads = weight.shape[1], pixels.dtype, torch.get_num_threads()
    panels = weight.new_empty(kernel("mask_logits_panels_size", dtype)(depth, channels))
    kernel("mask_logits_pack", dtype)(depth, channels, weight.data_ptr(), weight.stride(), threads, panels.data_ptr())
    bias = None if bias is None else bias.contiguous()
    kernel("mask_logits", dtype)(
        regions,
        height,
        width,
        depth,
        channels,
        pixels.data_ptr(),
        panels.data_ptr(),
        0 if bias is None else bias.data_ptr(),
        own.data_ptr(),
        threads,
        out.data_ptr(),
    )


@torch.library.impl(LIBRARY, "mask_logits_rows_backward", "CPU")
def _mask_logits_backward(
    grad: Tensor,
    input: Tensor,  # noqa: A002
    weight: Tensor,
    bias: Tensor | None,
    own: Tensor,
    count: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    live = live_rows.number(count, len(input))
    upsampling = _Upsampling(input[:live], weight, bias)
    channels, width = upsampling.matrix.shape
    sums = torch.promote_types(input.dtype, torch.float32)
    grad_input = live_rows.allocate(input.shape, input.dtype, live)
    grad_pixels = grad_input[:live].permute(0, 2, 3, 1).flatten(1, 2)
    grad_matrix = input.new_zeros((channels, width), dtype=sums)
    grad_bias = input.new_zeros((width,), dtype=sums)
    grad_own = torch.zeros_like(own)
    for part in upsampling.parts():
        hidden = upsampling.hidden(part)
        above = upsampling.blocks(grad[:live][part]).reshape(len(hidden), -1)
        grad_own[:live][part] = torch.bmm(above[:, None], hidden).squeeze(1)
        below = above[:, :, None] * own[:live][part, None]
        below = torch.ops.aten.threshold_backward(below, hidden, 0).view(-1, width)
        grad_pixels[part] = (below @ upsampling.matrix.T).view(len(hidden), -1, channels)
        grad_matrix += upsampling.inputs(part).T @ below
        grad_bias += below.sum(0, dtype=sums)
    grad_weight = torch.empty_like(weight).copy_(grad_matrix.view(channels, 2, 2, width // 4).permute(0, 3, 1, 2))
    return grad_input, grad_weight, grad_bias.view(4, -1).sum(0).to(weight.dtype), grad_own


@torch.library.register_fake("det_ops::mask_logits_rows", lib=LIBRARY)
def _(input, _weight, _bias, _own, _count):  # noqa: A002
    rows, _, height, width = input.shape
    return input.new_empty((rows, 2 * height, 2 * width))


@torch.library.register_fake("det_ops::mask_logits_rows_backward", lib=LIBRARY)
def _(_grad, input, weight, _bias, own, _count):  # noqa: A002
    return (
        empty_nhwc(input, *input.shape),
        torch.empty_like(weight),
        weight.new_empty((weight.shape[1],)),
        torch.empty_like(own),
    )


def _mask_logits_setup(ctx, inputs, output):  # noqa: ARG001 - the name is torch's
    ctx.save_for_backward(*inputs)


def _mask_logits_autograd(ctx, grad):
    grads = torch.ops.det_ops.mask_logits_rows_backward(grad, *ctx.saved_tensors)
    return *(part if need else None for part, need in zip(grads, ctx.needs_input_grad, strict=False)), None


torch.library.register_autograd(
    "det_ops::mask_logits_rows", _mask_logits_autograd, setup_context=_mask_logits_setup, lib=LIBRARY
)

live_rows.register(
    "mask_logits_rows", "C++", "the live rows alone, a few at a time: upsampled features stay in the cache", "dense"
)
