"""Fast NMS in plain PyTorch. `B` images, `N` boxes, `C` classes, `K` slots of the result, `*` leading dimensions.

`T` best boxes of each class are looked at.
"""

import math

import torch
from torch import Tensor

from det_ops.boxes import intersection_and_union
from det_ops.reference.nms import float32_floor


def fast_nms(
    boxes: Tensor, scores: Tensor, valid: Tensor | None, iou_threshold: float, top_k: int, max_output: int
) -> tuple[Tensor, Tensor, Tensor]:
    """A matrix of IoUs per class; `max_output` is at most C * `top_k`, and that at most C * N."""
    lead, (classes, n) = boxes.shape[:-2], scores.shape[-2:]
    if max_output == 0 or boxes.numel() == 0:
        empty = boxes.new_zeros((*lead, max_output), dtype=torch.int64)
        return empty, empty.clone(), empty.bool()
    dtype = torch.promote_types(torch.promote_types(boxes.dtype, scores.dtype), torch.float32)
    threshold = float32_floor(iou_threshold) if dtype == torch.float32 else iou_threshold
    boxes, scores = boxes.reshape(-1, n, 4).to(dtype), scores.reshape(-1, classes, n).to(dtype)
    candidate = scores > -math.inf
    if valid is not None:
        candidate = candidate & valid.reshape(-1, 1, n)
    scores, order = torch.where(candidate, scores, -math.inf).sort(dim=-1, descending=True, stable=True)
    scores, order = scores[..., :top_k], order[..., :top_k]  # [B, C, T]
    best = boxes.gather(1, order.flatten(1).unsqueeze(-1).expand(-1, -1, 4)).reshape(-1, classes, top_k, 4)
    intersection, union = intersection_and_union(best, best, 0.0)  # [B, C, T, T]
    suppressed = (intersection / union > threshold).triu(1).any(-2)  # [B, C, T]
    scores, place = torch.where(suppressed, -math.inf, scores).flatten(1).sort(dim=-1, descending=True, stable=True)
    place, kept = place[:, :max_output], scores[:, :max_output] > -math.inf  # [B, K]
    indices = torch.where(kept, order.flatten(1).gather(1, place), 0)
    labels = torch.where(kept, place // top_k, 0)
    indices, labels, kept = (part.reshape(*lead, max_output) for part in (indices, labels, kept))
    return indices, labels, kept
