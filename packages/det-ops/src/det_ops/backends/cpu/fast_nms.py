"""Fast NMS on the CPU."""

import torch
from torch import Tensor

from det_ops.backends.cpu import address, compute_type, function


def fast_nms(
    boxes: Tensor, scores: Tensor, valid: Tensor | None, iou_threshold: float, top_k: int, max_output: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Indices, labels and flags `[*, K]`; computed in float32, or float64."""
    lead, (classes, n) = boxes.shape[:-2], scores.shape[-2:]
    indices, labels = (torch.empty((*lead, max_output), dtype=torch.int64) for _ in range(2))
    kept = torch.empty((*lead, max_output), dtype=torch.bool)
    dtype = compute_type(boxes, scores)
    boxes, scores = boxes.to(dtype).contiguous(), scores.to(dtype).reshape(lead.numel(), classes, n)
    valid = None if valid is None else valid.contiguous()
    image_stride, class_stride, box_stride = scores.stride()
    function("fast_nms", dtype)(
        boxes.data_ptr(),
        scores.data_ptr(),
        image_stride,
        class_stride,
        box_stride,
        address(valid),
        lead.numel(),
        classes,
        n,
        iou_threshold,
        top_k,
        max_output,
        torch.get_num_threads(),
        indices.data_ptr(),
        labels.data_ptr(),
        kept.data_ptr(),
    )
    return indices, labels, kept
