"""Deformable convolution on the CPU: the samples by C++, as many at a time as the cache holds; PyTorch's product."""

from collections.abc import Iterator

import torch
from torch import Tensor

from det_ops.backends.cpu import address, compute_type, function
from det_ops.reference.deform_conv import Part, Sampling, convolve, convolve_backward
from det_ops.reference.deform_sampling import Geometry

_PIXELS_AT_ONCE = 512
"""Output pixels whose samples are held at a time: few enough for the cache, enough for a matrix product."""


class _Sampling(Sampling):
    def __init__(self, geometry: Geometry, input: Tensor, offset: Tensor, mask: Tensor | None) -> None:  # noqa: A002
        super().__init__(geometry, input, offset, mask)
        self.dtype = compute_type(input)

    def parts(self) -> Iterator[Part]:
        for image in range(len(self.input)):
            for begin in range(0, self.geometry.pixels, _PIXELS_AT_ONCE):
                yield image, begin, min(_PIXELS_AT_ONCE, self.geometry.pixels - begin)

    def columns(self, part: Part) -> Tensor:
        g = self.geometry
        out = torch.empty((g.groups, part[2], g.taps * g.channels // g.groups), dtype=self.dtype)
        function("deform_columns", self.dtype)(*self._arguments(part), out.data_ptr())
        return out

    def backward(self, part: Part, grad: Tensor) -> None:
        grad = grad.to(self.dtype).contiguous()  # autocast, where a backward pass is inside of it, has rounded it
        grads = address(self.grad_input), address(self.grad_offset), address(self.grad_mask)
        function("deform_columns_backward", self.dtype)(*self._arguments(part), grad.data_ptr(), *grads)

    def _arguments(self, part: Part) -> tuple[list[int], int, int, int, int, int, int, int]:
        g = self.geometry
        pairs = (g.size, g.kernel, g.out, g.stride, g.padding, g.dilation)
        sizes = [g.channels, *(value for pair in pairs for value in pair), g.groups, g.offset_groups]
        return sizes, address(self.input), address(self.offset), address(self.mask), *part, torch.get_num_threads()


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
    """`[B, O, H', W']`, channels-last; samples and product in float32, or float64."""
    g = Geometry.of(input, offset, weight, stride, padding, dilation)
    return convolve(_Sampling(g, input, offset, mask), input, weight, bias)


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
    return convolve_backward(_Sampling(g, input, offset, mask), grad, input, offset, mask, weight, needed)
