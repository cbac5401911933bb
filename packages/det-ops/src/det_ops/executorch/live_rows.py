"""Convolutions of the first rows of a padded batch in ExecuTorch: of all rows, and a mask. `R` rows, one a region."""

import torch
import torch.nn.functional as F
from torch import Tensor

from det_ops.reference.live_rows import mask


def convolution_rows(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    bias: Tensor | None,
    count: Tensor,
    stride: int,
    padding: int,
    relu: bool,
) -> Tensor:
    """The operator `det_ops::convolution_rows` of `input [R, C, H, W]`; the rectifier is part of XNNPACK's kernel."""
    found = F.conv2d(input, weight, bias, stride, padding)
    found = F.relu(found) if relu else found
    return torch.where(mask(input, count)[:, None, None, None], found, 0.0)


def mask_logits_rows(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    bias: Tensor | None,
    own: Tensor,
    count: Tensor,
) -> Tensor:
    """The operator `det_ops::mask_logits_rows` of `input [R, C, H, W]` and `own [R, D]`."""
    hidden = F.relu(F.conv_transpose2d(input, weight, bias, 2))  # [R, D, 2H, 2W]
    logits = torch.bmm(own[:, None], hidden.flatten(2)).view(-1, *hidden.shape[2:])
    return torch.where(mask(input, count)[:, None, None], logits, 0.0)
