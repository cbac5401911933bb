"""Greedy non-maximum suppression on the CPU."""

import torch
from torch import Tensor

from det_ops.backends.cpu import address, compute_type, function


def nms(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor | None,
    valid: Tensor | None,
    iou_threshold: float,
    max_output: int,
    offset: float,
) -> tuple[Tensor, Tensor]:
    """Indices and flags `[*, K]`; IoUs in float32, or float64."""
    dtype = compute_type(boxes, scores)
    boxes, scores = boxes.to(dtype).contiguous(), scores.to(dtype).contiguous()
    # Names hold the copies as long as their addresses are in use.
    groups = None if groups is None else groups.contiguous()
    valid = None if valid is None else valid.contiguous()
    lead, n = boxes.shape[:-2], boxes.shape[-2]
    indices = torch.empty((*lead, max_output), dtype=torch.int64)
    kept = torch.empty((*lead, max_output), dtype=torch.bool)
    function("nms", dtype)(
        boxes.data_ptr(),
        scores.data_ptr(),
        address(groups),
        address(valid),
        lead.numel(),
        n,
        iou_threshold,
        max_output,
        offset,
        torch.get_num_threads(),
        indices.data_ptr(),
        kept.data_ptr(),
    )
    return indices, kept
