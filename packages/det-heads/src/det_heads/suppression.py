"""Soft-NMS: boxes that overlap better ones lose score instead of being dropped (Bodla et al., arXiv:1704.04503)."""

from typing import Literal

import torch
from torch import Tensor

from det_ops import box_iou

__all__ = ["soft_nms"]


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor,
    *,
    decay: Literal["linear", "gaussian"],
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    score_threshold: float = 0.001,
    max_output: int,
    valid: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Take boxes by falling score, and lower the scores of those that overlap what was taken.

    Args:
        boxes: [B, N, 4] floating, x1, y1, x2, y2 in pixels.
        scores: [B, N].
        groups: [B, N] int64; boxes of different groups do not lower each other.
        decay: `linear`: times 1 - IoU where it is above the threshold; `gaussian`: times exp(-IoU^2 / sigma).
        iou_threshold: Of `linear`.
        sigma: Of `gaussian`.
        score_threshold: Boxes whose score has fallen to this are not taken.
        max_output: K, boxes taken at most.
        valid: [B, N] bool; other boxes neither stay nor lower scores.

    Returns:
        indices [B, K] int64 in the order in which they were taken, the scores [B, K] that they had then, and valid
        [B, K] bool.
    """
    left = torch.where(valid, scores, -1.0)
    indices, found = [], []
    for _ in range(max_output):
        score, best = left.max(dim=1)  # [B]
        indices.append(best)
        found.append(score)
        chosen = boxes.gather(1, best[:, None, None].expand(-1, 1, 4))  # [B, 1, 4]
        iou = box_iou(chosen, boxes)[:, 0]  # [B, N]
        factor = (
            torch.where(iou > iou_threshold, 1 - iou, 1.0) if decay == "linear" else torch.exp(-iou.square() / sigma)
        )
        same = groups == groups.gather(1, best[:, None])
        # A box that is not above the threshold ends the taking: it lowers nothing.
        lowers = same & (score > score_threshold)[:, None] & (left > 0)
        left = torch.where(lowers, left * factor, left).scatter(1, best[:, None], -1.0)
    values = torch.stack(found, 1)
    return torch.stack(indices, 1), values, values > score_threshold
