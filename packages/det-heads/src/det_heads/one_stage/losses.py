"""Losses of one-stage detectors, of all anchors. All arithmetic is float32 whatever the autocast type.

Shapes: `B` images, `N` anchors of an image over all levels, `C` classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from det_heads.classification import focal_loss
from det_heads.coding import BoxCoder, DistanceCoder
from det_heads.losses import regression_losses
from det_heads.matching import Samples
from det_heads.one_stage.config import OneStageConfig
from det_heads.one_stage.head import DenseOutputs
from det_heads.parts import WHOLE, BatchPart
from det_heads.rpn import flatten_levels

__all__ = ["centerness_targets", "dense_losses"]


def dense_losses(
    outputs: DenseOutputs,
    samples: Samples,
    config: OneStageConfig,
    coder: BoxCoder | DistanceCoder,
    part: BatchPart = WHOLE,
) -> dict[str, Tensor]:
    """Compute ``loss_cls``, ``loss_box`` and of FCOS ``loss_centerness``, over the number of positives.

    Args:
        outputs: Of the head.
        samples: All anchors and their objects.
        config: Conventions.
        coder: Box coding.
        part: Which part of a larger batch this is.

    Returns:
        Float32 scalars.
    """
    logits = flatten_levels(outputs.logits, config.num_classes).float()  # [B, N, C]
    deltas = flatten_levels(outputs.deltas, 4)  # [B, N, 4]
    classes = torch.arange(config.num_classes, device=logits.device)
    targets = (samples.labels[..., None] == classes).to(logits.dtype)  # none of background
    focal = focal_loss(logits, targets, alpha=config.focal_alpha, gamma=config.focal_gamma)
    each = {
        "loss_cls": focal * samples.valid[..., None],
        "loss_box": regression_losses(deltas, samples, coder, beta=config.beta, kind=config.box_loss),
    }
    if outputs.centerness:
        centerness = flatten_levels(outputs.centerness, 1).squeeze(2).float()
        target = centerness_targets(samples, coder)
        entropy = F.binary_cross_entropy_with_logits(centerness, target, reduction="none")
        each["loss_centerness"] = entropy * samples.positive
    positives = samples.positive.sum(1)  # [B]
    if config.normalizer == "image":
        number = positives.clamp(min=1)
        return {name: (loss.flatten(1).sum(1) / number).mean() for name, loss in each.items()}
    denominator = part.denominator(positives.sum())
    return {name: loss.sum() / denominator for name, loss in each.items()}


def centerness_targets(samples: Samples, coder: BoxCoder | DistanceCoder) -> Tensor:
    """Compute how near the centre of its object each cell is, in [0, 1] (FCOS, equation 3).

    Args:
        samples: All cells and their objects.
        coder: Gives distances.

    Returns:
        [B, N], 0 where a cell stands for no object.
    """
    low, high = coder.encode(samples.truth_boxes, samples.boxes).split(2, -1)  # left, top and right, bottom
    share = torch.minimum(low, high) / torch.maximum(low, high)
    return torch.where(samples.positive, share.prod(-1), 0.0).sqrt()
