"""Deformable convolution: a convolution whose taps move, and are weighted, per output pixel.

`B` images, `C` channels in, `O` channels out, `G` groups, `D` groups of channels that share offsets, `k_h, k_w` kernel,
`H', W'` output. Source: Deformable ConvNets (Dai et al., 2017), and v2 (Zhu et al., 2019) with a mask.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from det_ops._checks import check_device, check_shape, describe, expect
from det_ops._layout import empty_nhwc, nhwc
from det_ops.backends import _C, LIBRARY, native, register
from det_ops.reference import deform_conv as reference
from det_ops.reference.deform_conv import Geometry

LIBRARY.define(
    "deform_conv2d(Tensor input, Tensor offset, Tensor? mask, Tensor weight, Tensor? bias, SymInt[] stride, "
    "SymInt[] padding, SymInt[] dilation) -> Tensor"
)
LIBRARY.define(
    "deform_conv2d_backward(Tensor grad, Tensor input, Tensor offset, Tensor? mask, Tensor weight, SymInt[] stride, "
    "SymInt[] padding, SymInt[] dilation, bool[] needed) -> (Tensor, Tensor, Tensor, Tensor)"
)


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

    Sampling is bilinear with zeros around the map. Nothing is kept for the backward pass but the arguments: it samples
    again, so that it needs no memory for the samples of a whole batch.

    Args:
        input: `[B, C, H, W]` floating; channels-last memory is read without a copy.
        offset: `[B, 2 * D * k_h * k_w, H', W']` floating: for each group, then for each tap, rows and columns of the
            map to add to the place of the tap. The number of groups D follows from it.
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
    kind = input.device.type
    if torch.is_autocast_enabled(kind) and input.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(kind)
        input, weight, bias = input.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)  # noqa: A001
    steps = [[value, value] if isinstance(value, int) else list(value) for value in (stride, padding, dilation)]
    _check(input, offset, mask, weight, bias, *steps)
    return torch.ops.det_ops.deform_conv2d(input, offset, mask, weight, bias, *steps)


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


_PIXELS_AT_ONCE = 512
"""Output pixels whose samples the CPU holds at a time: few enough for its cache, enough for a matrix product."""

Part = tuple[int, int, int]
"""An image, its first output pixel and the number of pixels; the reference takes the batch as one part."""


class _Sampling:
    """The samples of a batch as columns of a matrix product, part by part: by the CPU's kernel, or the reference."""

    def __init__(self, geometry: Geometry, input: Tensor, offset: Tensor, mask: Tensor | None) -> None:  # noqa: A002
        compute = torch.float64 if input.dtype == torch.float64 else torch.float32
        self.geometry = geometry
        self.native = _C is not None and native(input)
        self.dtype = compute if self.native else input.dtype  # of the matrix product
        self.input = nhwc(input.to(compute))
        self.offset = offset.to(compute).contiguous()
        self.mask = None if mask is None else mask.to(compute).contiguous()

    def parts(self) -> Iterator[Part]:
        """All parts of the batch."""
        batch, pixels = len(self.input), self.geometry.pixels
        if not self.native:
            if batch:
                yield 0, 0, batch * pixels
            return
        for image in range(batch):
            for begin in range(0, pixels, _PIXELS_AT_ONCE):
                yield image, begin, min(_PIXELS_AT_ONCE, pixels - begin)

    def rows_of(self, part: Part, rows: Tensor) -> Tensor:
        """The part `[G, n, N]` of `rows [G, B * P, N]`."""
        image, begin, count = part
        return rows.narrow(1, image * self.geometry.pixels + begin, count)

    def columns(self, part: Part) -> Tensor:
        """`[G, n, T * C / G]`."""
        if _C is None or not self.native:
            return reference.columns(self.geometry, self.input, self.offset, self.mask).to(self.dtype)
        g = self.geometry
        out = torch.empty((g.groups, part[2], g.taps * g.channels // g.groups), dtype=self.dtype)
        kernel = _C.deform_columns_float64 if self.dtype == torch.float64 else _C.deform_columns_float32
        kernel(*self._arguments(part), out.data_ptr())
        return out

    def start_backward(self, needed: list[bool]) -> None:
        """Make room for the gradients of input `[B, H, W, C]`, offset and mask that are needed."""
        self.grad_input = torch.zeros_like(self.input) if needed[0] else None
        self.grad_offset = torch.empty_like(self.offset) if needed[1] or needed[2] else None
        self.grad_mask = torch.empty_like(self.mask) if needed[2] and self.mask is not None else None

    def backward(self, part: Part, grad: Tensor) -> None:
        """Add what the gradient `[G, n, T * C / G]` of the columns of a part gives."""
        if _C is None or not self.native:
            self.grad_input, self.grad_offset, self.grad_mask = reference.columns_backward(
                self.geometry, grad.to(self.input.dtype), self.input, self.offset, self.mask
            )
            return
        double = self.dtype == torch.float64
        kernel = _C.deform_columns_backward_float64 if double else _C.deform_columns_backward_float32
        grads = (self.grad_input, self.grad_offset, self.grad_mask)
        addresses = (0 if tensor is None else tensor.data_ptr() for tensor in grads)
        kernel(*self._arguments(part), grad.contiguous().data_ptr(), *addresses)

    def _arguments(self, part: Part) -> tuple[list[int], int, int, int, int, int, int, int]:
        g = self.geometry
        pairs = (g.size, g.kernel, g.out, g.stride, g.padding, g.dilation)
        sizes = [g.channels, *(value for pair in pairs for value in pair), g.groups, g.offset_groups]
        mask = 0 if self.mask is None else self.mask.data_ptr()
        return sizes, self.input.data_ptr(), self.offset.data_ptr(), mask, *part, torch.get_num_threads()


def _matrix(weight: Tensor, g: Geometry) -> Tensor:
    """`weight [O, C / G, k_h, k_w]` as `[G, T * C / G, O / G]`, as the columns are laid out."""
    grouped = weight.reshape(g.groups, -1, g.channels // g.groups, g.taps)
    return grouped.permute(0, 3, 2, 1).flatten(1, 2)


def _forward(
    input: Tensor,  # noqa: A002
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> Tensor:
    g = Geometry.of(input, offset, weight, stride, padding, dilation)
    sampling = _Sampling(g, input, offset, mask)
    matrix = _matrix(weight, g).to(sampling.dtype)
    batch, outputs = len(input), weight.shape[0]
    # Views are of this tensor, not this a view of others, whose result autograd would not let be changed in place.
    out = empty_nhwc(input, batch, outputs, *g.out, dtype=sampling.dtype)
    rows = out.permute(0, 2, 3, 1).view(batch * g.pixels, g.groups, outputs // g.groups).transpose(0, 1)
    for part in sampling.parts():
        sampling.rows_of(part, rows).copy_(torch.bmm(sampling.columns(part), matrix))
    if bias is not None:
        out += bias.to(out.dtype)[:, None, None]
    return out.to(input.dtype)


def _backward(
    grad: Tensor,
    input: Tensor,  # noqa: A002
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    needed: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of input, offset, mask and weight; empty for those not needed."""
    g = Geometry.of(input, offset, weight, stride, padding, dilation)
    sampling = _Sampling(g, input, offset, mask)
    matrix = _matrix(weight, g).to(sampling.dtype)
    outputs = weight.shape[0] // g.groups
    rows = nhwc(grad).reshape(len(input) * g.pixels, g.groups, outputs).transpose(0, 1).to(sampling.dtype)
    sampling.start_backward(needed)
    grad_matrix = torch.zeros_like(matrix)
    for part in sampling.parts():
        some = sampling.rows_of(part, rows)
        if any(needed[:3]):
            sampling.backward(part, torch.bmm(some, matrix.transpose(1, 2)))
        if needed[3]:
            grad_matrix += torch.bmm(sampling.columns(part).transpose(1, 2), some)
    grads = [
        input.new_empty(0) if part is None or not wanted else part.to(like.dtype)
        for part, like, wanted in (
            (sampling.grad_input, input, needed[0]),
            (sampling.grad_offset, offset, needed[1]),
            (sampling.grad_mask, input if mask is None else mask, needed[2]),
        )
    ]
    if needed[0]:
        grads[0] = grads[0].permute(0, 3, 1, 2)
    if not needed[3]:
        return grads[0], grads[1], grads[2], input.new_empty(0)
    grouped = grad_matrix.unflatten(1, (g.taps, -1)).permute(0, 3, 2, 1)  # [G, O / G, C / G, T]
    return grads[0], grads[1], grads[2], grouped.reshape(weight.shape).to(weight.dtype)


LIBRARY.impl("deform_conv2d", _forward, "CompositeExplicitAutograd")
LIBRARY.impl("deform_conv2d_backward", _backward, "CompositeExplicitAutograd")


@torch.library.register_fake("det_ops::deform_conv2d", lib=LIBRARY)
def _(input, offset, _mask, weight, _bias, _stride, _padding, _dilation):  # noqa: A002
    return empty_nhwc(input, input.shape[0], weight.shape[0], offset.shape[2], offset.shape[3])


@torch.library.register_fake("det_ops::deform_conv2d_backward", lib=LIBRARY)
def _(_grad, input, offset, mask, weight, _stride, _padding, _dilation, needed):  # noqa: A002
    batch, channels, height, width = input.shape
    return (
        empty_nhwc(input, batch, channels, height, width) if needed[0] else input.new_empty(0),
        torch.empty_like(offset, memory_format=torch.contiguous_format) if needed[1] else input.new_empty(0),
        torch.empty_like(mask, memory_format=torch.contiguous_format)
        if needed[2] and mask is not None
        else input.new_empty(0),
        torch.empty_like(weight, memory_format=torch.contiguous_format) if needed[3] else input.new_empty(0),
    )


def _setup(ctx, inputs, output):  # noqa: ARG001 - the name is torch's
    *tensors, bias, stride, padding, dilation = inputs
    ctx.save_for_backward(*tensors)
    ctx.steps = stride, padding, dilation
    ctx.bias = None if bias is None else bias.dtype


def _autograd(ctx, grad):
    want_input, want_offset, want_mask, want_weight, want_bias, *_ = ctx.needs_input_grad
    needed = [want_input, want_offset, want_mask, want_weight]
    grads = [None] * 4
    if any(needed):
        found = torch.ops.det_ops.deform_conv2d_backward(grad, *ctx.saved_tensors, *ctx.steps, needed)
        grads = [part if wanted else None for part, wanted in zip(found, needed, strict=True)]
    return *grads, grad.sum((0, 2, 3)) if want_bias else None, None, None, None


torch.library.register_autograd("det_ops::deform_conv2d", _autograd, setup_context=_setup, lib=LIBRARY)

register("deform_conv2d", "cpu", "C++", "samples as columns, channels-last, 512 pixels at a time; PyTorch's product")
for _device in ("cuda", "npu"):
    register("deform_conv2d", _device, "reference", "four gathers and a matrix product, static, no host read")
