"""Losses of boxes by their overlap with the truth: GIoU, DIoU and CIoU."""

import math

import torch
from torch import Tensor

from det_heads.config import BoxLoss

__all__ = ["overlap_loss"]


def overlap_loss(boxes: Tensor, truth: Tensor, kind: BoxLoss, *, offset: float = 0.0, eps: float = 1e-7) -> Tensor:
    """Compute 1 less a generalised IoU, numbers as in torchvision's and fvcore's losses.

    Args:
        boxes: [..., 4] floating, x1, y1, x2, y2 in pixels.
        truth: [..., 4], the boxes that they should be.
        kind: `giou`: the IoU less the share of the hull that neither covers (Rezatofighi et al., arXiv:1902.09630);
            `diou`: less the squared distance of the centres in diagonals of the hull; `ciou`: less a term of the
            aspect ratios too (Zheng et al., arXiv:1911.08287).
        offset: Width convention: 1 where x2, y2 are the last pixel.
        eps: Added to divisors.

    Returns:
        [...], 0 where they are the same; `giou` and `diou` less than 2.
    """
    low, high = torch.maximum(boxes[..., :2], truth[..., :2]), torch.minimum(boxes[..., 2:], truth[..., 2:])
    both = (high - low + offset).clamp(min=0).prod(-1)
    sides, wanted = boxes[..., 2:] - boxes[..., :2] + offset, truth[..., 2:] - truth[..., :2] + offset
    union = sides.prod(-1) + wanted.prod(-1) - both
    iou = both / (union + eps)
    first, last = torch.minimum(boxes[..., :2], truth[..., :2]), torch.maximum(boxes[..., 2:], truth[..., 2:])
    hull = last - first + offset
    if kind == "giou":
        area = hull.prod(-1)
        return 1 - iou + (area - union) / (area + eps)
    distance = ((boxes[..., :2] + boxes[..., 2:] - truth[..., :2] - truth[..., 2:]) / 2).square().sum(-1)
    loss = 1 - iou + distance / (hull.square().sum(-1) + eps)
    if kind == "diou":
        return loss
    angles = torch.atan(wanted[..., 0] / wanted[..., 1]) - torch.atan(sides[..., 0] / sides[..., 1])
    aspect = 4 / math.pi**2 * angles.square()
    with torch.no_grad():
        weight = aspect / (1 - iou + aspect + eps)
    return loss + weight * aspect
