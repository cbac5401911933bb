"""Deformable convolution in plain PyTorch: samples as columns of a matrix product, and the product.

`B` images, `C` channels in, `O` channels out, `G` groups, `T` taps of the kernel, `P` output pixels.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from det_ops._layout import empty_nhwc, nhwc
from det_ops.reference.deform_sampling import Geometry, columns, columns_backward

Part = tuple[int, int, int]
"""An image, its first output pixel and the number of pixels: of the batch read as one row of pixels."""


class Sampling:
    """The samples of a batch as columns of a matrix product, part by part; here the batch is one part.

    Args:
        geometry: Sizes.
        input: `[B, C, H, W]`.
        offset: `[B, 2 * D * T, H', W']`.
        mask: `[B, D * T, H', W']` or None.
    """

    def __init__(self, geometry: Geometry, input: Tensor, offset: Tensor, mask: Tensor | None) -> None:  # noqa: A002
        compute = torch.float64 if input.dtype == torch.float64 else torch.float32
        self.geometry = geometry
        self.dtype = input.dtype  # of the matrix product
        self.input = nhwc(input.to(compute))
        self.offset = offset.to(compute).contiguous()
        self.mask = None if mask is None else mask.to(compute).contiguous()
        self.grad_input: Tensor | None = None  # [B, H, W, C]
        self.grad_offset: Tensor | None = None
        self.grad_mask: Tensor | None = None

    def parts(self) -> Iterator[Part]:
        """All parts of the batch."""
        if len(self.input):
            yield 0, 0, len(self.input) * self.geometry.pixels

    def rows_of(self, part: Part, rows: Tensor) -> Tensor:
        """The part `[G, n, N]` of `rows [G, B * P, N]`."""
        image, begin, count = part
        return rows.narrow(1, image * self.geometry.pixels + begin, count)

    def columns(self, part: Part) -> Tensor:  # noqa: ARG002 - there is one
        """`[G, n, T * C / G]`."""
        return columns(self.geometry, self.input, self.offset, self.mask).to(self.dtype)

    def start_backward(self, needed: list[bool]) -> None:
        """Make room for the gradients of input, offset and mask that are needed."""
        self.grad_input = torch.zeros_like(self.input) if needed[0] else None
        self.grad_offset = torch.empty_like(self.offset) if needed[1] or needed[2] else None
        self.grad_mask = torch.empty_like(self.mask) if needed[2] and self.mask is not None else None

    def backward(self, part: Part, grad: Tensor) -> None:  # noqa: ARG002
        """Add what the gradient `[G, n, T * C / G]` of the columns of a part gives."""
        self.grad_input, self.grad_offset, self.grad_mask = columns_backward(
            self.geometry, grad.to(self.input.dtype), self.input, self.offset, self.mask
        )


def deform_conv2d(
    input: Tensor,  # noqa: A002
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> Tensor:
    """`[B, O, H', W']`, channels-last; see `det_ops.deform_conv2d`."""
    g = Geometry.of(input, offset, weight, stride, padding, dilation)
    return convolve(Sampling(g, input, offset, mask), input, weight, bias)


def convolve(sampling: Sampling, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002
    """The convolution `[B, O, H', W']`, dtype of `input`, by the samples of a kernel or by those of this module."""
    g = sampling.geometry
    matrix = _matrix(weight, g).to(sampling.dtype)
    batch, outputs = len(input), weight.shape[0]
    # Views are of this tensor, not this a view of others, whose result autograd would not let be changed in place.
    out = empty_nhwc(input, batch, outputs, *g.out, dtype=sampling.dtype)
    # [G, B * P, O / G]
    rows = out.permute(0, 2, 3, 1).view(batch * g.pixels, g.groups, outputs // g.groups).transpose(0, 1)
    for part in sampling.parts():
        sampling.rows_of(part, rows).copy_(torch.bmm(sampling.columns(part), matrix))
    if bias is not None:
        out += bias.to(out.dtype)[:, None, None]
    return out.to(input.dtype)


def deform_conv2d_backward(
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
    return convolve_backward(Sampling(g, input, offset, mask), grad, input, offset, mask, weight, needed)


def convolve_backward(
    sampling: Sampling,
    grad: Tensor,
    input: Tensor,  # noqa: A002
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    needed: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of input, offset, mask and weight, by the samples of a kernel or by those of this module."""
    g = sampling.geometry
    matrix = _matrix(weight, g).to(sampling.dtype)
    outputs = weight.shape[0] // g.groups
    # [G, B * P, O / G]
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


def _matrix(weight: Tensor, g: Geometry) -> Tensor:
    """`weight [O, C / G, k_h, k_w]` as `[G, T * C / G, O / G]`, as the columns are laid out."""
    grouped = weight.reshape(g.groups, -1, g.channels // g.groups, g.taps)
    return grouped.permute(0, 3, 2, 1).flatten(1, 2)
