"""How a box head tells classes apart: losses for long tails, and the probabilities that belong to them.

`N` boxes of `B` images, `C` classes; logits have a column for each class and, last, one for background.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from det_heads._require import require
from det_heads.classification_config import ClassificationConfig
from det_heads.parts import WHOLE, BatchPart

__all__ = [
    "ClassCounts",
    "balanced_weights",
    "class_counts",
    "class_losses",
    "class_probabilities",
    "federated_classes",
    "focal_loss",
    "seesaw_loss",
]


class ClassCounts(NamedTuple):
    """How often the classes are in the data to train on.

    Attributes:
        objects: [C] float32 objects of each class.
        images: [C] float32 images with each class.
        weights: [C] float32 weights of the class-balanced loss, all 1 without.
    """

    objects: Tensor
    images: Tensor
    weights: Tensor


def class_counts(config: ClassificationConfig, classes: int) -> ClassCounts | None:
    """Make tensors of the numbers [C] that a configuration has; None where its loss needs none, or it has none.

    Raises:
        ValueError: There is not one for each class.
    """
    if not config.needs_counts or not config.object_counts:
        return None
    counts = {"object_counts": config.object_counts, "image_counts": config.image_counts}
    for name, numbers in counts.items():
        expected = f"{classes} numbers, one for each class"
        require(len(numbers) == classes, f"classification.{name}", expected, len(numbers))
    objects, images = (torch.tensor(numbers, dtype=torch.float32) for numbers in counts.values())
    weights = balanced_weights(objects, config.class_balance) if config.class_balance else torch.ones(classes)
    return ClassCounts(objects, images, weights)


def class_probabilities(logits: Tensor, config: ClassificationConfig) -> Tensor:
    """Compute the probabilities of classes and background.

    Args:
        logits: [..., C + 1].
        config: Which loss they were trained with.

    Returns:
        [..., C + 1] float32. Those of `sigmoid` and `focal` are independent of each other, and background is 0.
    """
    logits = logits.float()
    if config.kind == "softmax":
        return logits.softmax(-1)
    background = logits[..., -1:].sigmoid()
    if config.kind == "seesaw":
        return torch.cat((logits[..., :-1].softmax(-1) * (1 - background), background), -1)
    return torch.cat((logits[..., :-1].sigmoid(), torch.zeros_like(background)), -1)


def class_losses(
    logits: Tensor,
    labels: Tensor,
    config: ClassificationConfig,
    *,
    label_smoothing: float = 0.0,
    counts: ClassCounts | None = None,
    chosen: Tensor | None = None,
) -> Tensor:
    """Compute the loss of each box, to be divided by the number of boxes.

    Args:
        logits: [N, C + 1] float32.
        labels: [N] int64, C for background.
        config: Which loss.
        label_smoothing: As of cross entropy; of `softmax` alone.
        counts: [C] each, for `seesaw` and the class-balanced loss.
        chosen: [N, C] bool, the classes in the loss of each box's image; None: all.

    Returns:
        [N] float32.

    Raises:
        ValueError: The loss depends on the classes' numbers of objects, and there are none.
    """
    classes = logits.shape[1] - 1
    if config.kind == "softmax":
        losses = F.cross_entropy(logits, labels, reduction="none", label_smoothing=label_smoothing)
    elif config.kind == "seesaw":
        losses = seesaw_loss(logits, labels, known(counts).objects, p=config.seesaw_p, q=config.seesaw_q)
    else:
        targets = _one_hot(labels, classes).to(logits.dtype)
        if config.kind == "focal":
            each = focal_loss(logits[:, :-1], targets, alpha=config.focal_alpha, gamma=config.focal_gamma)
        else:
            each = F.binary_cross_entropy_with_logits(logits[:, :-1], targets, reduction="none")
        losses = (each if chosen is None else each * chosen).sum(1)
    if not config.class_balance:
        return losses
    weights = known(counts).weights
    return losses * torch.cat((weights, weights.new_ones(1)))[labels]


def focal_loss(logits: Tensor, targets: Tensor, *, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Compute the focal loss (Lin et al., "Focal loss for dense object detection", arXiv:1708.02002).

    Args:
        logits: Any shape.
        targets: The same shape, 0 or 1.
        alpha: Weight of targets of 1, 1 - alpha of the others; negative: no weights.
        gamma: Exponent of the error.

    Returns:
        The same shape.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    probability = logits.sigmoid()
    error = probability + targets - 2 * probability * targets  # 1 - the probability of the truth
    loss = entropy * error**gamma
    return loss if alpha < 0 else loss * (alpha * targets + (1 - alpha) * (1 - targets))


def seesaw_loss(logits: Tensor, labels: Tensor, counts: Tensor, *, p: float = 0.8, q: float = 2.0) -> Tensor:
    """Compute the seesaw loss (Wang et al., "Seesaw loss for long-tailed instance segmentation", arXiv:2008.10032).

    Background is told from objects by the last logit alone. The classes' numbers are those of the data, where the
    paper counts them as training goes on, so that nothing has to be kept for a resumption.

    Args:
        logits: [N, C + 1].
        labels: [N] int64, C for background.
        counts: [C] objects of each class.
        p: Mitigation: a class of fewer objects than the box's own is pushed less by their ratio to this power.
        q: Compensation: a class that is more probable than the box's own is pushed more by their ratio to this power.

    Returns:
        [N]: of a box that is background the loss of being an object, of others that and the loss of the class.
    """
    classes = logits.shape[1] - 1
    scores, background = logits[:, :-1], labels == classes
    own = labels.clamp(max=classes - 1)
    truth = _one_hot(own, classes).to(logits.dtype)  # [N, C]
    counts = counts.clamp(min=1)
    factors = (counts / counts[own][:, None]).clamp(max=1) ** p  # [N, C]
    probabilities = scores.detach().softmax(1)
    ratio = probabilities / probabilities.gather(1, own[:, None]).clamp(min=1e-2)
    factors = factors * ratio.clamp(min=1) ** q
    of_class = F.cross_entropy(scores + factors.log() * (1 - truth), own, reduction="none")
    of_background = F.binary_cross_entropy_with_logits(logits[:, -1], background.to(logits.dtype), reduction="none")
    return of_background + torch.where(background, 0.0, of_class)


def balanced_weights(counts: Tensor, beta: float) -> Tensor:
    """Compute the weights [C] of classes of `counts` [C] objects in the class-balanced loss (Cui et al., 2019)."""
    # In double precision: beta^n is near 1 for rare classes. A class without objects weighs as one with one.
    powers = torch.pow(torch.as_tensor(beta, dtype=torch.float64, device=counts.device), counts.clamp(min=1).double())
    weights = (1 - beta) / (1 - powers)
    return (weights / weights.mean()).float()


def federated_classes(labels: Tensor, count: int, images: Tensor, part: BatchPart = WHOLE) -> Tensor:
    """Draw the classes in the loss of each image: its own, and others by the root of their numbers of images.

    Source: Zhou et al., "Probabilistic two-stage detection", arXiv:2103.07461; d2 `get_fed_loss_classes`.

    Args:
        labels: [B, S] int64, the classes of an image's boxes; C for background.
        count: Classes of an image, if it does not have more itself.
        images: [C] images with each class.
        part: Which part of a larger batch this is.

    Returns:
        [B, C] bool.
    """
    classes = len(images)
    own = _one_hot(labels, classes).any(1)  # [B, C]
    uniform = part.random_keys(len(labels), classes, labels.device).clamp(min=torch.finfo(torch.float32).tiny)
    # The largest of log(w) + Gumbel noise are drawn without replacement in proportion to w.
    keys = 0.5 * images.log() - (-uniform.log()).log()
    keys = torch.where(own, math.inf, keys)
    drawn = keys.topk(min(count, classes), dim=1).indices
    return own | torch.zeros_like(own).scatter(1, drawn, True)


def _one_hot(labels: Tensor, classes: int) -> Tensor:
    """Which class each label [...] is: [..., C] bool, none for background. PyTorch's own looks at the values."""
    return labels[..., None] == torch.arange(classes, device=labels.device)


def known(counts: ClassCounts | None) -> ClassCounts:
    """Return the numbers [C] that a loss needs.

    Raises:
        ValueError: There are none.
    """
    if counts is None:
        raise ValueError(
            "classification.object_counts and image_counts must hold numbers for this loss: count the objects of each "
            "class, and the images with it, in the data to train on."
        )
    return counts
