"""Channels-last memory: what kernels that work along channels read and write."""

import torch
from torch import Tensor


def empty_nhwc(like: Tensor, n: int, c: int, h: int, w: int, dtype: torch.dtype | None = None) -> Tensor:
    """Uninitialised `[n, c, h, w]` whose memory is n, h, w, c whatever the sizes."""
    return torch.empty_strided((n, c, h, w), (h * w * c, 1, w * c, c), dtype=dtype or like.dtype, device=like.device)


def nhwc(tensor: Tensor) -> Tensor:
    """`tensor [N, C, H, W]` as contiguous `[N, H, W, C]`; no copy where the memory already is channels-last."""
    return tensor.permute(0, 2, 3, 1).contiguous()
