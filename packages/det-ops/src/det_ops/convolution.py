"""Convolution as PyTorch has it, faster on CPUs where it has 3x3 taps.

`B` images, `C` channels in, `O` channels out, `k_h, k_w` kernel, `H', W'` output.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from det_ops._autocast import in_autocast
from det_ops._layout import empty_nhwc, empty_nhwc_like
from det_ops._operator import operator
from det_ops.backends.cpu import winograd
from det_ops.reference import convolution as reference

__all__ = ["Conv2d", "conv2d"]

Size = int | tuple[int, int]


def conv2d(
    input: Tensor,  # noqa: A002 - torch's name
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """Convolution, as `torch.nn.functional.conv2d` with the same arguments.

    On CPUs, 3x3 convolutions of stride 1 in float32 and float64 take Winograd's minimal filtering where the map is
    large enough to gain by it: a quarter of the multiplications, about twice as fast, with a rounding error of 1e-6
    instead of 2e-7 of the outputs' root mean square. So do those in bfloat16, with 1.2e-2 instead of 3e-3 on
    processors that multiply bfloat16 numbers (those with AMX, which are faster without, are left to PyTorch), and with
    3e-3 elsewhere. Everything else is PyTorch's own, and all of it in compiled and exported programs.

    Args:
        input: `[B, C, H, W]` floating; channels-last memory is read without a copy.
        weight: `[O, C / groups, k_h, k_w]`, dtype of `input`.
        bias: `[O]`, dtype of `input`, or None.
        stride: Of rows and columns, or of both.
        padding: Zeros around the map, of rows and columns, or of both; or "same" or "valid".
        dilation: Distance of taps, of rows and columns, or of both.
        groups: Groups of channels.

    Returns:
        `[B, O, H', W']`, dtype of `input` (autocast's under autocast). Where Winograd's filtering computed it, it is
        channels-last in memory and differentiable once, and an input that is not finite makes all outputs of the
        tiles that read it, four by four pixels each, not finite.

    Raises:
        RuntimeError: Shapes or dtypes do not go together (PyTorch's own message); a second derivative is asked for.
    """
    if (
        not torch.compiler.is_compiling()
        and groups == 1
        and not isinstance(padding, str)
        and _pair(stride) == _pair(dilation) == (1, 1)
        and _conv3x3.backend((weight,)) is not None
        and winograd.serves(weight)
    ):
        input, weight, bias = in_autocast(input, weight, bias)  # noqa: A001
        if winograd.suits(input, weight, bias, _pair(padding)):
            return _conv3x3(input, weight, bias, _pair(padding))
    return F.conv2d(input, weight, bias, stride, padding, dilation, groups)


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d` that computes by :func:`conv2d`."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002
        if self.padding_mode != "zeros":
            return super()._conv_forward(input, weight, bias)
        return conv2d(input, weight, bias, self.stride, self.padding, self.dilation, self.groups)  # pyrefly: ignore

    @classmethod
    def convert(cls, module: nn.Module) -> nn.Module:
        """Make the 3x3 convolutions of stride 1 in a network instances of this class; parameters and hooks stay.

        Args:
            module: Any network, such as one of torchvision's. Subclasses of `torch.nn.Conv2d` are left alone.

        Returns:
            `module`.
        """
        for part in module.modules():
            if type(part) is nn.Conv2d and part.kernel_size == (3, 3) and part.stride == (1, 1):
                part.__class__ = cls
        return module

    @classmethod
    def prepack(cls, module: nn.Module) -> nn.Module:
        """Transform the weights of a network for inference once, instead of at every call.

        This serves the weights of 3x3 convolutions of stride 1 in the formats of :func:`conv2d`; it costs four times
        their memory and saves up to a tenth of the time. Functions of this package that are given such a weight use
        the transformed one too.

        The network is for inference from then on. A weight that is trained, loaded or moved afterwards is transformed
        at every call again, but writes that PyTorch does not count (through `.data`, or NumPy) go unnoticed. To change
        the network, change a copy that is not prepacked, such as the one that `copy.deepcopy` makes.

        Args:
            module: Any network, after :meth:`convert`. Its convolutions of this class are made constant
                (`requires_grad` is False).

        Returns:
            `module`.
        """
        for part in module.modules():
            if isinstance(part, cls):
                part.requires_grad_(False)
                whole = part.stride == part.dilation == (1, 1) and part.groups == 1
                if whole and _conv3x3.backend((part.weight,)) is not None and winograd.serves(part.weight):
                    winograd.prepack(part.weight)
        return module


def _pair(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


@operator(
    "conv3x3(Tensor input, Tensor weight, Tensor? bias, int[] padding) -> Tensor",
    reference=reference.conv3x3,
    functions=["conv2d"],
    fallback="PyTorch's convolution",
)
def _conv3x3(input, weight, _bias, padding):  # noqa: A002
    height, width = (size + 2 * around - 2 for size, around in zip(input.shape[2:], padding, strict=True))
    return empty_nhwc(input, input.shape[0], weight.shape[0], height, width)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001 - the name is torch's
    input, weight, _, ctx.padding = inputs  # noqa: A001
    ctx.save_for_backward(input, weight)


def _apply(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    want_input, want_weight, want_bias, _ = ctx.needs_input_grad
    grad_input = grad_weight = None
    if want_input or want_weight:
        found = _conv3x3_backward(grad, *ctx.saved_tensors, ctx.padding, [want_input, want_weight])
        grad_input, grad_weight = found[0] if want_input else None, found[1] if want_weight else None
    return grad_input, grad_weight, grad.sum((0, 2, 3)) if want_bias else None, None


@_conv3x3.gradient(
    "conv3x3_backward(Tensor grad, Tensor input, Tensor weight, int[] padding, bool[] needed) -> (Tensor, Tensor)",
    reference=reference.conv3x3_backward,
    save=_save,
    apply=_apply,
    twice="; det_ops.kernels('reference') is PyTorch's, which is twice",
)
def _conv3x3_backward(_grad, input, weight, _padding, needed):  # noqa: A002
    return (
        empty_nhwc_like(input) if needed[0] else input.new_empty(0),
        torch.empty_like(weight) if needed[1] else weight.new_empty(0),
    )
