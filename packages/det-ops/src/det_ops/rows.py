"""Convolutions of the first rows of a padded batch, and the end of a mask head.

A mask head has room for every region that may be positive, and most often few are. The shapes stay static; the number
of live rows is a tensor, and on the CPU the kernel reads it and computes those rows alone.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from det_ops import _kernels, _winograd
from det_ops._checks import check_device, check_shape, expect
from det_ops._kernels import LIBRARY
from det_ops._layout import nhwc

__all__ = ["convolution_rows", "mask_logits_rows"]

LIBRARY.define(
    "convolution_rows(Tensor input, Tensor weight, Tensor? bias, Tensor count, int stride, int padding, bool relu) "
    "-> Tensor"
)
LIBRARY.define(
    "convolution_rows_backward(Tensor grad, Tensor input, Tensor weight, Tensor? out, Tensor count, int stride, "
    "int padding, bool[] needed) -> (Tensor, Tensor, Tensor)"
)
LIBRARY.define("mask_logits_rows(Tensor input, Tensor weight, Tensor? bias, Tensor own, Tensor count) -> Tensor")
LIBRARY.define(
    "mask_logits_rows_backward(Tensor grad, Tensor input, Tensor weight, Tensor? bias, Tensor own, Tensor count) "
    "-> (Tensor, Tensor, Tensor, Tensor)"
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
        than the CPU they are computed and masked, so their input must be finite.

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
    _check_rows(input, count, weight=weight, bias=bias)
    input, weight, bias = _autocast(input, weight, bias)  # noqa: A001
    if _native(input):
        return torch.ops.det_ops.convolution_rows(input, weight, bias, count, stride, padding, relu)
    # All rows, then a mask: one static sequence of differentiable operators.
    out = F.conv2d(input, weight, bias, stride, padding)
    out = torch.where(_is_live(input, count)[:, None, None, None], out, 0.0)
    return F.relu_(out) if relu else out


def mask_logits_rows(
    input: Tensor,  # noqa: A002
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
    _check_rows(input, count, weight=weight, bias=bias, own=own)
    input, weight, bias, own = _autocast(input, weight, bias, own)  # noqa: A001
    if _native(input):
        return torch.ops.det_ops.mask_logits_rows(input, weight, bias, own, count)
    # Each pixel of the upsampled map sees one pixel: a 1x1 convolution to four times the channels, and only the logits
    # need to be put in their places.
    live = _is_live(input, count)
    kernel = weight.permute(2, 3, 1, 0).flatten(0, 2)[..., None, None]  # [4D, C, 1, 1]
    hidden = F.conv2d(input, kernel, None if bias is None else bias.repeat(4))
    hidden = F.relu_(torch.where(live[:, None, None, None], hidden, 0.0))
    hidden = hidden.permute(0, 2, 3, 1).reshape(rows, height * width * 4, weight.shape[1])
    logits = torch.where(live[:, None], torch.bmm(hidden, own[:, :, None]).squeeze(2), 0.0)
    logits = logits.view(rows, height, width, 2, 2)
    return logits.transpose(2, 3).reshape(rows, 2 * height, 2 * width)


def _check_rows(input: Tensor, count: Tensor, **others: Tensor | None) -> None:  # noqa: A002
    expect(count.shape == () and count.dtype == torch.int64, "count", "an int64 Tensor[]", count)
    for name, tensor in {"count": count, **others}.items():
        if tensor is not None:
            check_device(tensor, name, input, "input")


def _autocast(input: Tensor, *others: Tensor | None) -> tuple[Any, ...]:  # noqa: A002
    kind = input.device.type
    if not torch.is_autocast_enabled(kind) or input.dtype == torch.float64:
        return input, *others
    dtype = torch.get_autocast_dtype(kind)
    return input.to(dtype), *(None if tensor is None else tensor.to(dtype) for tensor in others)


def _native(input: Tensor) -> bool:  # noqa: A002
    return input.device.type == "cpu" and _kernels.native(input)


def _is_live(input: Tensor, count: Tensor) -> Tensor:  # noqa: A002
    return torch.arange(len(input), device=input.device) < count


def _live(count: Tensor, rows: int) -> int:
    return min(max(int(count), 0), rows)


def _out_shape(input: Tensor, weight: Tensor, stride: int, padding: int) -> tuple[int, int, int, int]:  # noqa: A002
    height, width = (
        (size + 2 * padding - side) // stride + 1 for size, side in zip(input.shape[2:], weight.shape[2:], strict=True)
    )
    return len(input), len(weight), height, width


def _channels_last(shape: Sequence[int]) -> tuple[int, int, int, int]:
    """Strides."""
    _, c, h, w = shape
    return h * w * c, 1, w * c, c


def _zeros(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A contiguous tensor of zeros whose memory costs nothing where it is neither read nor written.

    torch writes its zeros; NumPy takes untouched pages of the system. Most rows are dead, and only live ones are used.
    """
    memory = torch.from_numpy(np.zeros(max(math.prod(shape), 1) * dtype.itemsize, np.uint8)).view(dtype)
    return memory[: math.prod(shape)].view(*shape)


def _zeros_channels_last(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    n, c, h, w = shape
    return _zeros((n, h, w, c), dtype).permute(0, 3, 1, 2)


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
    out = _zeros_channels_last(_out_shape(input, weight, stride, padding), input.dtype)
    live, around = _live(count, len(input)), (padding, padding)
    rows, found = input[:live], out[:live]
    if stride == 1 and _winograd.suits(rows, weight, bias, around):
        _winograd.forward(rows, weight, bias, around, relu=relu, out=found)
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
    grad_input = _zeros_channels_last(input.shape, input.dtype) if needed[0] else input.new_empty((0,))
    # Laid out as the weight is, so that nobody copies it again.
    grad_weight = torch.zeros_like(weight) if needed[1] else weight.new_empty((0,))
    grad_bias = weight.new_zeros((len(weight) if needed[2] else 0,))
    live, around = _live(count, len(input)), (padding, padding)
    if live:
        rows = input[:live]
        above = grad[:live] if out is None else torch.ops.aten.threshold_backward(grad[:live], out[:live], 0)
        if stride == 1 and _winograd.suits(rows, weight, None, around):
            parts = _winograd.backward(above, rows, weight, around, needed[:2])
            parts = *parts, above.sum((0, 2, 3)) if needed[2] else grad_bias
        else:
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
    return input.new_empty_strided(shape, _channels_last(shape))


@torch.library.register_fake("det_ops::convolution_rows_backward", lib=LIBRARY)
def _(_grad, input, weight, _out, _count, _stride, _padding, needed):  # noqa: A002
    shape = tuple(input.shape)
    return (
        input.new_empty_strided(shape, _channels_last(shape)) if needed[0] else input.new_empty((0,)),
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
    live = _live(count, rows)
    upsampling = _Upsampling(input[:live], weight, bias)
    for part in upsampling.parts():
        logits = torch.bmm(upsampling.hidden(part), own[:live][part, :, None])
        blocks = upsampling.blocks(out[:live][part])
        blocks.copy_(logits.view(blocks.shape))
    return out


@torch.library.impl(LIBRARY, "mask_logits_rows_backward", "CPU")
def _mask_logits_backward(
    grad: Tensor,
    input: Tensor,  # noqa: A002
    weight: Tensor,
    bias: Tensor | None,
    own: Tensor,
    count: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    live = _live(count, len(input))
    upsampling = _Upsampling(input[:live], weight, bias)
    channels, width = upsampling.matrix.shape
    sums = torch.promote_types(input.dtype, torch.float32)
    grad_input = _zeros_channels_last(input.shape, input.dtype)
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
    shape = tuple(input.shape)
    return (
        input.new_empty_strided(shape, _channels_last(shape)),
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

for _name, _reason, _dense in (
    ("convolution_rows", "the live rows alone, as conv2d; the count is read inside the operator", "dense convolution"),
    ("mask_logits_rows", "the live rows alone, a few at a time, so that upsampled features stay in the cache", "dense"),
):
    _kernels.register(_name, "cpu", "torch", _reason)
    for _device in ("cuda", "npu"):
        _kernels.register(_name, _device, "torch", f"{_dense} and a row mask: no host read")
