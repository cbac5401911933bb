"""Losses of the two stages. Padding has weight zero, and all arithmetic is float32 whatever the autocast type."""

import torch
import torch.nn.functional as F
from torch import Tensor

from det_heads.box_regression import overlap_loss
from det_heads.classification import ClassCounts, class_losses, federated_classes, known
from det_heads.coding import BoxCoder, DistanceCoder
from det_heads.config import BoxHeadConfig, BoxLoss, RPNConfig
from det_heads.matching import Samples
from det_heads.parts import WHOLE, BatchPart

__all__ = ["box_losses", "mask_loss", "regression_loss", "regression_losses", "rpn_losses"]


def regression_loss(
    deltas: Tensor, samples: Samples, coder: BoxCoder | DistanceCoder, *, beta: float, kind: BoxLoss = "smooth_l1"
) -> Tensor:
    """Loss of the boxes, summed over the positive samples.

    Args:
        deltas: [B, S, 4] predictions for each sample's own class.
        samples: Boxes and their objects.
        coder: Box coding.
        beta: Where the loss becomes linear; 0: L1.
        kind: Smooth L1 between deltas and the coded objects, or an overlap of the boxes.

    Returns:
        A scalar, float32, not normalised.
    """
    return regression_losses(deltas, samples, coder, beta=beta, kind=kind).sum()


def regression_losses(
    deltas: Tensor, samples: Samples, coder: BoxCoder | DistanceCoder, *, beta: float, kind: BoxLoss = "smooth_l1"
) -> Tensor:
    """Compute what :func:`regression_loss`, whose arguments these are, is the sum of.

    Returns:
        [B, S, ...] float32, zero where a sample stands for no object.
    """
    positive = samples.positive[..., None]
    if kind != "smooth_l1":
        # Padding and background have no object: any box stands in for both.
        corner = torch.zeros_like(samples.truth_boxes[..., :2])
        any_box = torch.cat((corner, corner + 1), -1)
        boxes = torch.where(positive, coder.decode(deltas.float(), samples.boxes), any_box)
        truth = torch.where(positive, samples.truth_boxes, any_box)
        return overlap_loss(boxes, truth, kind, offset=coder.offset) * samples.positive
    targets = coder.encode(samples.truth_boxes, samples.boxes)  # [B, S, 4]
    # Padding may encode to infinities, which a zero weight would turn into NaN.
    targets = torch.where(positive, targets, 0.0)
    loss = F.smooth_l1_loss(deltas.float(), targets, reduction="none", beta=beta)
    return loss * positive


def _weighted(loss: Tensor, factor: float) -> Tensor:
    """A loss times a factor; 1, as in all published recipes, costs no operator."""
    return loss if factor == 1 else factor * loss


def rpn_losses(
    logits: Tensor, deltas: Tensor, samples: Samples, config: RPNConfig, coder: BoxCoder, part: BatchPart = WHOLE
) -> tuple[Tensor, Tensor]:
    """Objectness and box loss of the RPN.

    Args:
        logits: [B, S] at the sampled anchors.
        deltas: [B, S, 4] at the sampled anchors.
        samples: The sampled anchors.
        config: Conventions.
        coder: Box coding.
        part: Which part of a larger batch this is.

    Returns:
        Two float32 scalars.
    """
    if config.normalizer == "configured":
        denominator: Tensor | int = config.samples * logits.shape[0]
    else:
        denominator = part.denominator(samples.valid.sum())
    objectness = F.binary_cross_entropy_with_logits(logits.float(), samples.positive.float(), reduction="none")
    regression = regression_loss(deltas, samples, coder, beta=config.beta, kind=config.box_loss)
    return (objectness * samples.valid).sum() / denominator, _weighted(regression, config.box_loss_weight) / denominator


def box_losses(
    logits: Tensor,
    deltas: Tensor,
    samples: Samples,
    config: BoxHeadConfig,
    coder: BoxCoder,
    part: BatchPart = WHOLE,
    counts: ClassCounts | None = None,
) -> tuple[Tensor, Tensor]:
    """Classification and box loss of a box head; both are means over the sampled boxes, background included.

    Args:
        logits: [B, S, C + 1], background last.
        deltas: [B, S, 4C], or [B, S, 4] when class-agnostic.
        samples: The sampled boxes.
        config: Conventions.
        coder: Box coding.
        part: Which part of a larger batch this is.
        counts: [C] objects and images of each class, for losses that depend on them.

    Returns:
        Two float32 scalars.

    Raises:
        ValueError: The loss depends on the classes' numbers, and there are none.
    """
    batch, count, classes = logits.shape
    denominator = part.denominator(samples.valid.sum())
    chosen = None
    if config.classification.federated:
        own = torch.where(samples.positive, samples.labels, classes - 1)
        images = known(counts).images
        chosen = federated_classes(own, config.classification.federated, images, part).repeat_interleave(count, 0)
    classification = class_losses(
        logits.float().flatten(0, 1),
        samples.labels.flatten(),
        config.classification,
        label_smoothing=config.label_smoothing,
        counts=counts,
        chosen=chosen,
    )
    classification = (classification * samples.valid.flatten()).sum() / denominator
    if not config.class_agnostic:
        own_class = samples.labels.clamp(max=classes - 2)[..., None, None].expand(-1, -1, 1, 4)
        deltas = deltas.reshape(batch, count, classes - 1, 4).gather(2, own_class).squeeze(2)
    regression = regression_loss(deltas, samples, coder, beta=config.beta, kind=config.box_loss)
    return classification, _weighted(regression, config.box_loss_weight) / denominator


def mask_loss(logits: Tensor, targets: Tensor, used: Tensor, part: BatchPart = WHOLE) -> Tensor:
    """Binary cross entropy, the mean over the pixels of all used rows.

    Args:
        logits: [R, P, P] of each row's class.
        targets: [R, P, P] in 0..1.
        used: [R] bool.
        part: Which part of a larger batch this is.

    Returns:
        A scalar, float32, zero where no row is used.
    """
    loss = F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none").mean(dim=(1, 2))
    return (loss * used).sum() / part.denominator(used.sum())
