"""3x3 convolutions of stride 1 by PyTorch's own. `B` images, `C` channels in, `O` channels out."""

import torch
from torch import Tensor

from det_ops._layout import empty_nhwc_like


def conv3x3(input: Tensor, weight: Tensor, bias: Tensor | None, padding: list[int]) -> Tensor:  # noqa: A002
    """`[B, O, H', W']`, channels-last."""
    found = torch.convolution(input, weight, bias, [1, 1], padding, [1, 1], False, [0, 0], 1)
    return empty_nhwc_like(found).copy_(found)


def conv3x3_backward(
    grad: Tensor,
    input: Tensor,  # noqa: A002
    weight: Tensor,
    padding: list[int],
    needed: list[bool],
) -> tuple[Tensor, Tensor]:
    """Gradients of input, channels-last, and weight; empty for those not needed."""
    wanted = [*needed, False]
    grad_input, grad_weight, _ = torch.ops.aten.convolution_backward(
        grad, input, weight, None, [1, 1], padding, [1, 1], False, [0, 0], 1, wanted
    )
    return (
        empty_nhwc_like(input).copy_(grad_input) if needed[0] else input.new_empty(0),
        torch.empty_like(weight).copy_(grad_weight) if needed[1] else weight.new_empty(0),
    )
