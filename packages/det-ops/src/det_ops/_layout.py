"""Layouts of memory: channels-last, which kernels that work along channels read and write, or contiguous."""

import torch
from torch import Tensor


def empty_nhwc(like: Tensor, n: int, c: int, h: int, w: int, dtype: torch.dtype | None = None) -> Tensor:
    """Uninitialised `[n, c, h, w]` whose memory is n, h, w, c whatever the sizes."""
    return torch.empty_strided((n, c, h, w), (h * w * c, 1, w * c, c), dtype=dtype or like.dtype, device=like.device)


def empty_nhwc_like(tensor: Tensor) -> Tensor:
    """Uninitialised, of the shape `[n, c, h, w]` and dtype of `tensor`, with memory n, h, w, c."""
    n, c, h, w = tensor.shape
    return empty_nhwc(tensor, n, c, h, w)


def nhwc(tensor: Tensor) -> Tensor:
    """`tensor [n, c, h, w]` as contiguous `[n, h, w, c]`; no copy where the memory already is channels-last."""
    return tensor.permute(0, 2, 3, 1).contiguous()


def empty_regions(
    features: Tensor, regions: int, pooled: tuple[int, int], channels_last: bool, dtype: torch.dtype | None = None
) -> Tensor:
    """Uninitialised `[R, C, P, P]` of `features [B, C, H, W]`, channels-last or contiguous."""
    channels = features.shape[1]
    if channels_last:
        return empty_nhwc(features, regions, channels, *pooled, dtype)
    return features.new_empty(regions, channels, *pooled, dtype=dtype)


def lay_out(values: Tensor, channels_last: bool) -> Tensor:
    """`values [R, C, P, P]`, channels-last or contiguous; no copy where they are."""
    memory = values.permute(0, 2, 3, 1) if channels_last else values
    if memory.is_contiguous():
        return values
    return empty_regions(values, len(values), (values.shape[2], values.shape[3]), channels_last).copy_(values)
