"""Which priors are which objects, as YOLACT decides it (`layers/box_utils.py`, `match`).

Shapes: `B` images, `N` priors, `M` slots for objects.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from det_heads.yolact.config import YolactLossConfig

__all__ = ["PriorMatch", "match_priors"]


class PriorMatch(NamedTuple):
    """Roles of the priors; those neither positive nor negative are neutral.

    Attributes:
        index: [B, N] int64, slot of each prior's object; 0 where there is none.
        positive: [B, N] bool.
        negative: [B, N] bool.
    """

    index: Tensor
    positive: Tensor
    negative: Tensor


@torch.no_grad()
def match_priors(priors: Tensor, boxes: Tensor, valid: Tensor, crowd: Tensor, config: YolactLossConfig) -> PriorMatch:
    """Matches by IoU; every object gets a prior of its own, objects of large IoU first.

    Args:
        priors: [N, 4] as fractions of the image.
        boxes: [B, M, 4] likewise.
        valid: [B, M] bool, used slots.
        crowd: [B, M] bool; crowd regions match nothing and make priors in them neutral.
        config: Thresholds.
    """
    usable = valid & ~crowd
    overlap = _intersection(boxes, priors)
    areas = _area(priors)
    in_crowd = torch.where((valid & crowd)[..., None], overlap / areas, 0.0).amax(1) > config.crowd_iou
    iou = overlap / (_area(boxes)[..., None] + areas - overlap)
    iou = torch.where(usable[..., None], iou, -1.0)
    # Not max(dim): which of equal values it returns is not defined; argmax returns the first.
    best, index = iou.amax(1), iou.argmax(1)
    forced = _own_prior(iou)
    index = torch.where(forced >= 0, forced, index)
    positive = (best >= config.positive_iou) | (forced >= 0)
    negative = (best < config.negative_iou) & ~positive & ~in_crowd
    return PriorMatch(index, positive, negative)


def _own_prior(iou: Tensor) -> Tensor:
    """[B, N] int64: the object that a prior must have, or -1; by the largest IoU [B, M, N] left, again and again.

    At most M - 1 other objects take priors away from one, so its M best suffice.
    """
    batch, slots, count = iou.shape
    values, priors = iou.topk(min(slots, count), -1)
    images = torch.arange(batch, device=iou.device)
    slot_numbers = torch.arange(slots, device=iou.device)
    own = torch.full((batch, slots), count, device=iou.device)  # `count`: none
    for _ in range(slots):
        best = values.amax(-1)
        top, slot = best.amax(-1), best.argmax(-1)
        row, candidates = values[images, slot], priors[images, slot]
        # Of priors that overlap equally, the first.
        prior = torch.where(row == top[:, None], candidates, count).amin(-1)
        mine = (slot_numbers == slot[:, None]) & (top >= 0)[:, None]
        own = torch.where(mine, prior[:, None], own)
        gone = (priors == prior[:, None, None]) | (slot_numbers == slot[:, None])[..., None]
        values = torch.where(gone, -1.0, values)
    forced = torch.full((batch, count + 1), -1, device=iou.device)
    return forced.scatter_(1, own, slot_numbers.expand(batch, -1))[:, :count]


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def _intersection(boxes: Tensor, priors: Tensor) -> Tensor:
    """[B, M, N]"""
    low = torch.maximum(boxes[:, :, None, :2], priors[:, :2])
    high = torch.minimum(boxes[:, :, None, 2:], priors[:, 2:])
    return (high - low).clamp_(min=0).prod(-1)
