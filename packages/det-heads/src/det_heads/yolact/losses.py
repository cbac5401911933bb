"""The losses of YOLACT (`layers/modules/multibox_loss.py`). All arithmetic is float32 whatever the autocast type.

Boxes are fractions of the image. Shapes: `B` images, `N` priors, `M` slots for objects, `C` classes, `K` prototypes
of size `h x w`, `R` masks.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from det_heads.packing import pack
from det_heads.yolact.config import MaskIoUConfig
from det_heads.yolact.heads import MaskIoUNet
from det_heads.yolact.masks import assemble, inside_boxes
from det_heads.yolact.matching import PriorMatch
from det_ops import encode_boxes

__all__ = [
    "CODING",
    "MaskSamples",
    "box_loss",
    "classification_loss",
    "mask_iou_loss",
    "mask_losses",
    "sample_masks",
    "semantic_loss",
]

CODING = (10.0, 10.0, 5.0, 5.0)
"""SSD's variances 0.1 and 0.2."""

_CLAMPED = 100.0
"""-log(0) as PyTorch's binary cross entropy of probabilities has it, which the original takes."""


def box_loss(deltas: Tensor, priors: Tensor, boxes: Tensor, match: PriorMatch) -> Tensor:
    """Compute smooth L1, a scalar: the sum over the positive priors.

    Args:
        deltas: [B, N, 4].
        priors: [N, 4].
        boxes: [B, M, 4].
        match: Roles of the priors.
    """
    positive = match.positive[..., None]
    truth = boxes.gather(1, match.index[..., None].expand(-1, -1, 4))
    targets = torch.where(positive, encode_boxes(truth, priors.expand_as(truth), CODING), 0.0)
    return (F.smooth_l1_loss(deltas.float(), targets, reduction="none") * positive).sum()


def classification_loss(logits: Tensor, labels: Tensor, match: PriorMatch, negatives: int) -> Tensor:
    """Compute cross entropy, a scalar: the sum over the positive priors and the hardest negatives.

    Negatives are ranked by how far their background is from certain; an image has `negatives` times as many of them as
    positives.

    Args:
        logits: [B, N, C + 1], background first.
        labels: [B, M], 0..C-1.
        match: Roles of the priors.
        negatives: For each positive.
    """
    logits = logits.float()
    total = logits.logsumexp(-1)
    targets = torch.where(match.positive, labels.gather(1, match.index) + 1, 0)
    hardness = torch.where(match.negative, (total - logits[..., 0]).detach(), 0.0)
    order = hardness.argsort(dim=1, descending=True, stable=True)
    ranks = torch.arange(order.shape[1], device=order.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(1, order, ranks)
    chosen = match.positive | (match.negative & (rank < negatives * match.positive.sum(1, keepdim=True)))
    loss = total - logits.gather(-1, targets[..., None]).squeeze(-1)
    return (loss * chosen).sum()


class MaskSamples(NamedTuple):
    """Positive priors that train the masks.

    Attributes:
        prior: [B, R] int64.
        slot: [B, R] int64, their objects.
        used: [B, R] bool.
        weight: [B] float32, positives divided by those used.
    """

    prior: Tensor
    slot: Tensor
    used: Tensor
    weight: Tensor


@torch.no_grad()
def sample_masks(match: PriorMatch, keys: Tensor, count: int) -> MaskSamples:
    """Choose at most `count` positives of each image: those with the largest keys [B, N] in [0, 1)."""
    keys, prior = torch.where(match.positive, keys, -1.0).topk(min(count, keys.shape[1]), 1)
    used = keys >= 0
    weight = match.positive.sum(1) / used.sum(1).clamp(min=1)
    return MaskSamples(prior, match.index.gather(1, prior), used, weight)


def mask_losses(
    prototypes: Tensor,
    coefficients: Tensor,
    samples: MaskSamples,
    boxes: Tensor,
    bitmaps: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Binary cross entropy of cropped masks, summed over pixels, divided by each object's area, summed over masks.

    Outside of the box and a border of one pixel a mask is zero, and an object's pixels there cost a constant.

    Args:
        prototypes: [B, K, h, w] float32.
        coefficients: [B, N, K].
        samples: Which priors.
        boxes: [B, M, 4].
        bitmaps: [B, M, h, w], 0 or 1.

    Returns:
        The loss in units of whole masks, not yet divided by h * w; logits of the masks, which pixels are not cropped
        away, and the true masks, all [B, R, h, w], float32, bool and float32.
    """
    size = (prototypes.shape[-2], prototypes.shape[-1])
    chosen = coefficients.float().gather(1, samples.prior[..., None].expand(-1, -1, coefficients.shape[-1]))
    logits = assemble(prototypes, chosen)
    own = boxes.gather(1, samples.slot[..., None].expand(-1, -1, 4))
    images = torch.arange(len(boxes), device=boxes.device)[:, None]
    truth = bitmaps[images, samples.slot].float()
    inside = inside_boxes(own, size)
    loss = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    loss = torch.where(inside, loss.clamp(max=_CLAMPED), _CLAMPED * truth).sum((2, 3))
    area = (own[..., 2:] - own[..., :2]).prod(-1)
    loss = torch.where(samples.used, loss / area.clamp(min=torch.finfo(area.dtype).tiny), 0.0)
    return (loss.sum(1) * samples.weight).sum() / (size[0] * size[1]), logits, inside, truth


def mask_iou_loss(
    net: MaskIoUNet, masks: Tensor, truth: Tensor, labels: Tensor, used: Tensor, config: MaskIoUConfig
) -> Tensor:
    """Compute smooth L1 between estimated and actual IoU of masks, a scalar: the sum over those that are large enough.

    Args:
        net: The network.
        masks: [B, R, h, w] cropped probabilities.
        truth: [B, R, h, w] 0 or 1.
        labels: [B, R] classes 0..C-1.
        used: [B, R] bool.
        config: What is large enough.
    """
    with torch.no_grad():
        area, binary = truth.sum((2, 3)), (masks > 0.5).float()
        common = (binary * truth).sum((2, 3))
        actual = common / (binary.sum((2, 3)) + area - common).clamp(min=1)
        packing = pack(used & (area > config.min_area))
    estimates = net(masks.flatten(0, 1)[packing.order], packing.count)
    estimates = estimates.gather(1, labels.flatten()[packing.order][:, None]).squeeze(1)
    loss = F.smooth_l1_loss(estimates, actual.flatten()[packing.order], reduction="none")
    return (loss * packing.used).sum()


def semantic_loss(logits: Tensor, bitmaps: Tensor, labels: Tensor, usable: Tensor) -> Tensor:
    """Compute binary cross entropy of classes' pixels, a scalar: the sum over classes and images, the mean over pixels.

    Args:
        logits: [B, C, H3, W3].
        bitmaps: [B, M, H3, W3], 0 or 1.
        labels: [B, M].
        usable: [B, M] bool.
    """
    pixels = (bitmaps * usable[..., None, None]).flatten(2).float()
    target = torch.zeros_like(logits, dtype=torch.float32).flatten(2)
    # A sum, since torch_npu's scatter_reduce waits for the device.
    target = target.scatter_add(1, labels[..., None].expand_as(pixels), pixels).clamp(max=1)
    loss = F.binary_cross_entropy_with_logits(logits.float().flatten(2), target, reduction="none")
    return loss.sum() / target.shape[-1]
