"""Matching on the CPU."""

import torch
from torch import Tensor

from det_ops.backends.cpu import compute_type, function


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
    """Index int64 and label int8, `[B, N]`; IoUs in float32, or float64."""
    dtype = compute_type(anchors, truth)
    anchors, truth, valid = anchors.to(dtype).contiguous(), truth.to(dtype).contiguous(), valid.contiguous()
    n, (b, m) = anchors.shape[-2], truth.shape[:2]
    index = torch.empty((b, n), dtype=torch.int64)
    label = torch.empty((b, n), dtype=torch.int8)
    function("match", dtype)(
        anchors.data_ptr(),
        anchors.ndim == 2,
        n,
        truth.data_ptr(),
        valid.data_ptr(),
        b,
        m,
        high,
        low,
        allow_low_quality,
        low_quality_iou,
        reassign_low_quality,
        offset,
        torch.get_num_threads(),
        index.data_ptr(),
        label.data_ptr(),
    )
    return index, label
