"""Matching in plain PyTorch. `B` images, `N` anchors, `M` slots for truth, `T` of them at a time."""

import torch
from torch import Tensor

from det_ops.boxes import iou, upcast

TRUTHS_AT_ONCE = 16
"""How many rows of the IoU matrix the reference holds: `[B, 16, N]` instead of `[B, M, N]`."""


def match(
    anchors: Tensor,
    truth: Tensor,
    valid: Tensor,
    high: float,
    low: float,
    allow_low_quality: bool,
    low_quality_iou: float,
    reassign_low_quality: bool,
    offset: float,
) -> tuple[Tensor, Tensor]:
    """A running maximum over slices of the IoU matrix."""
    anchors, truth = upcast(anchors), upcast(truth)
    n, (b, m) = anchors.shape[-2], truth.shape[:2]
    best = truth.new_full((b, n), -1.0)  # [B, N]
    index = torch.zeros((b, n), dtype=torch.int64, device=truth.device)
    forced = torch.full_like(index, -1)  # the last truth whose best anchor it is
    for start in range(0, m if n else 0, TRUTHS_AT_ONCE):
        some = slice(start, start + TRUTHS_AT_ONCE)
        quality = torch.where(valid[:, some, None], iou(truth[:, some], anchors, offset), -1)  # [B, T, N]
        # Not max(dim): which of equal values it returns is not defined; argmax returns the first.
        largest, first = quality.amax(1), quality.argmax(1)  # [B, N]
        better = largest > best
        best = torch.where(better, largest, best)
        index = torch.where(better, first + start, index)
        if allow_low_quality:
            top = quality.amax(2, keepdim=True)  # [B, T, 1]
            enough = valid[:, some, None] & (top >= low_quality_iou)
            slots = torch.arange(start, start + quality.shape[1], device=truth.device)[:, None]
            forced = forced.maximum(torch.where((quality == top) & enough, slots, -1).amax(1))
    if reassign_low_quality:
        index = torch.where(forced >= 0, forced, index)
    positive = (best >= high) | (forced >= 0)
    label = torch.where(positive, 1, torch.where(best < low, 0, -1))
    return index, torch.where(valid.any(1, keepdim=True), label, 0).to(torch.int8)
