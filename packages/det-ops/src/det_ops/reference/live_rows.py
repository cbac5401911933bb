"""Convolutions of the first rows of a padded batch in plain PyTorch: of all rows, and a mask.

`R` rows, `C` channels in, `O` or `D` channels out, `H, W` map; `r` live rows, `m` of them at a time.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from det_ops._layout import empty_nhwc_like, nhwc


def mask(input: Tensor, count: Tensor) -> Tensor:  # noqa: A002
    """Which rows are live: bool `[R]`."""
    return torch.arange(input.shape[0], device=input.device) < count


def out_shape(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    stride: int,
    padding: int,
) -> tuple[int, int, int, int]:
    """`R, O, H', W'` of a convolution of the rows."""
    height, width = (
        (size + 2 * padding - side) // stride + 1 for size, side in zip(input.shape[2:], weight.shape[2:], strict=True)
    )
    return input.shape[0], weight.shape[0], height, width


def convolution_rows(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    bias: Tensor | None,
    count: Tensor,
    stride: int,
    padding: int,
    relu: bool,
) -> Tensor:
    """All rows, then a mask: one static sequence of differentiable operators."""
    out = F.conv2d(input, weight, bias, stride, padding)
    out = torch.where(mask(input, count)[:, None, None, None], out, 0.0)
    return F.relu_(out) if relu else out


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
    """Gradients of input, channels-last, weight and bias; empty for those not needed. `out` if it was rectified."""
    grad = torch.where(mask(input, count)[:, None, None, None], grad, 0.0)
    if out is not None:
        grad = torch.ops.aten.threshold_backward(grad, out, 0)
    parts = torch.ops.aten.convolution_backward(
        grad, input, weight, [len(weight)], [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1, needed
    )
    return (
        empty_nhwc_like(input).copy_(parts[0]) if needed[0] else input.new_empty(0),
        torch.empty_like(weight).copy_(parts[1]) if needed[1] else weight.new_empty(0),
        parts[2] if needed[2] else weight.new_empty(0),
    )


def mask_logits_rows(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    bias: Tensor | None,
    own: Tensor,
    count: Tensor,
) -> Tensor:
    """`[R, 2H, 2W]`, all rows, then a mask.

    Each pixel of the upsampled map sees one pixel: a 1x1 convolution to four times the channels, and only the logits
    need to be put in their places.
    """
    rows, _, height, width = input.shape
    taps = weight.permute(2, 3, 1, 0).flatten(0, 2)[..., None, None]  # [4D, C, 1, 1]
    hidden = F.relu_(F.conv2d(input, taps, None if bias is None else bias.repeat(4)))
    hidden = hidden.permute(0, 2, 3, 1).reshape(rows, height * width * 4, weight.shape[1])  # [R, 4 * H * W, D]
    logits = torch.bmm(hidden, own[:, :, None]).squeeze(2)
    # Without a gradient of theirs, dead rows give none to what they were computed from.
    logits = torch.where(mask(input, count)[:, None], logits, 0.0)
    logits = logits.view(rows, height, width, 2, 2)
    return logits.transpose(2, 3).reshape(rows, 2 * height, 2 * width)


def mask_logits_rows_backward(
    grad: Tensor,
    input: Tensor,  # noqa: A002
    weight: Tensor,
    bias: Tensor | None,
    own: Tensor,
    count: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of input, channels-last, weight, bias and own."""
    grad = torch.where(mask(input, count)[:, None, None], grad, 0.0)
    grad_input, grad_own = empty_nhwc_like(input), torch.empty_like(own)
    grad_weight, grad_bias = fill_gradients(grad, input, weight, bias, own, grad_input, grad_own)
    return grad_input, grad_weight, grad_bias, grad_own


def fill_gradients(
    grad: Tensor,
    input: Tensor,  # noqa: A002
    weight: Tensor,
    bias: Tensor | None,
    own: Tensor,
    grad_input: Tensor,
    grad_own: Tensor,
) -> tuple[Tensor, Tensor]:
    """Write the gradients of `input [r, C, H, W]`, channels-last, and `own [r, D]`; return those of weight and bias."""
    upsampling = Upsampling(input, weight, bias)
    channels, width = upsampling.matrix.shape
    sums = torch.promote_types(input.dtype, torch.float32)
    grad_pixels = grad_input.permute(0, 2, 3, 1).flatten(1, 2)  # [r, H * W, C]
    grad_matrix = input.new_zeros((channels, width), dtype=sums)
    grad_bias = input.new_zeros((width,), dtype=sums)
    for part in upsampling.parts():
        hidden = upsampling.hidden(part)
        above = upsampling.blocks(grad[part]).reshape(len(hidden), -1)  # [m, H * W * 4]
        grad_own[part] = torch.bmm(above[:, None], hidden).squeeze(1)
        below = above[:, :, None] * own[part, None]
        below = torch.ops.aten.threshold_backward(below, hidden, 0).view(-1, width)
        grad_pixels[part] = (below @ upsampling.matrix.T).view(len(hidden), -1, channels)
        grad_matrix += upsampling.inputs(part).T @ below
        grad_bias += below.sum(0, dtype=sums)
    grad_weight = torch.empty_like(weight).copy_(grad_matrix.view(channels, 2, 2, width // 4).permute(0, 3, 1, 2))
    return grad_weight, grad_bias.view(4, -1).sum(0).to(weight.dtype)


_CACHED = 4 << 20
"""Bytes of upsampled features at a time."""


class Upsampling:
    """Upsampled features of a few live rows at a time: a matrix product to the 2x2 pixels that each pixel becomes.

    Args:
        input: `[r, C, H, W]`, the live rows.
        weight: `[C, D, 2, 2]`.
        bias: `[D]` or None.
    """

    def __init__(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> None:  # noqa: A002
        self.pixels = nhwc(input).flatten(1, 2)  # [r, H * W, C]
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
