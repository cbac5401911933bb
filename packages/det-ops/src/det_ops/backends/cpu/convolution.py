"""3x3 convolutions of stride 1 on the CPU."""

from torch import Tensor

from det_ops.backends.cpu import winograd


def conv3x3(input: Tensor, weight: Tensor, bias: Tensor | None, padding: list[int]) -> Tensor:  # noqa: A002
    """`[B, O, H', W']`, channels-last; float32, float64 or bfloat16."""
    return winograd.forward(input, weight, bias, (padding[0], padding[1]))


def conv3x3_backward(
    grad: Tensor,
    input: Tensor,  # noqa: A002
    weight: Tensor,
    padding: list[int],
    needed: list[bool],
) -> tuple[Tensor, Tensor]:
    """Gradients of input, channels-last, and weight; empty for those not needed."""
    return winograd.backward(grad, input, weight, (padding[0], padding[1]), needed)
