"""Which candidate boxes stand for which objects, and which of them train the heads.

Anchors, proposals and the refined boxes of a cascade all go through :func:`match`, then :func:`subsample` (or
:func:`label_all` where a stage does not sample again). Shapes: `B` images, `N` candidates, `M`
object slots, `S` samples.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

import det_ops

__all__ = ["GroundTruth", "Matches", "Samples", "ground_truth", "label_all", "match", "subsample", "without_ignored"]


class GroundTruth(NamedTuple):
    """Objects of a batch in the detector's width convention.

    Attributes:
        boxes: [B, M, 4] float32.
        labels: [B, M] int64.
        usable: [B, M] bool; crowd regions and empty slots are not.
        ignored: [B, M] bool, crowd and ignored regions, in which there is no background; None: they count as such.
        ignore_iof: Share of a candidate in such a region from which on it is no background.
    """

    boxes: Tensor
    labels: Tensor
    usable: Tensor
    ignored: Tensor | None = None
    ignore_iof: float = 1.0


class Matches(NamedTuple):
    """What :func:`match` found for every candidate.

    Attributes:
        truth_index: [B, N] int64, the object it would stand for: that of largest IoU, unless assigned again.
        label: [B, N] int8: 1 object, 0 background, -1 neither.
    """

    truth_index: Tensor
    label: Tensor


class Samples(NamedTuple):
    """Candidates that train a head; positives first where they were drawn at random.

    Attributes:
        index: [B, S] int64 into the candidates.
        boxes: [B, S, 4] float32, the candidates.
        truth_boxes: [B, S, 4] float32, their objects (meaningless unless positive).
        truth_index: [B, S] int64, slot of the object.
        labels: [B, S] int64: class of the object; ``num_classes`` for background.
        positive: [B, S] bool.
        valid: [B, S] bool; the other slots are padding and carry no loss.
        max_positives: Only the first so many slots of an image can be positive, whatever the data.
    """

    index: Tensor
    boxes: Tensor
    truth_boxes: Tensor
    truth_index: Tensor
    labels: Tensor
    positive: Tensor
    valid: Tensor
    max_positives: int


def ground_truth(batch: Mapping[str, Tensor], offset: float = 0.0, ignore_iof: float | None = None) -> GroundTruth:
    """Take from a batch the objects that two-stage detectors learn from.

    Args:
        batch: ``boxes``, ``labels``, ``valid``, ``crowd``, and ``scales`` where ``offset`` is 1.
        offset: 1 turns x2, y2 into the last pixel of the object. That is one pixel of the original image, and so one
            ``scale`` in the resized one (maskrcnn-benchmark converts before it resizes).
        ignore_iof: See :attr:`GroundTruth.ignore_iof`; None: crowd regions are background.

    Returns:
        The truth, with crowd regions unusable.
    """
    boxes = batch["boxes"].float()
    if offset:
        last = boxes[..., 2:] - offset * batch["scales"].flip(-1)[:, None]
        boxes = torch.cat([boxes[..., :2], torch.maximum(last, boxes[..., :2])], dim=-1)
    truth = GroundTruth(boxes, batch["labels"], batch["valid"] & ~batch["crowd"])
    if ignore_iof is None:
        return truth
    return truth._replace(ignored=batch["valid"] & batch["crowd"], ignore_iof=ignore_iof)


def match(
    boxes: Tensor,
    valid: Tensor | None,
    truth: GroundTruth,
    *,
    positive_iou: float,
    negative_iou: float,
    low_quality: bool,
    low_quality_iou: float = 0.0,
    reassign_low_quality: bool = False,
    offset: float,
) -> Matches:
    """Label candidates by their IoU with the objects.

    Args:
        boxes: [N, 4], shared by all images, or [B, N, 4].
        valid: [B, N] bool, candidates that may be used; None: all.
        truth: Objects.
        positive_iou: From here on a candidate is positive.
        negative_iou: Below, it is background.
        low_quality: Each object's best candidates are positive from a lower IoU on.
        low_quality_iou: That IoU.
        reassign_low_quality: They then stand for that object, whatever other they overlap more.
        offset: Width convention.

    Returns:
        The matches; candidates that are not valid, and background in ignored regions, have label -1.
    """
    index, label = det_ops.match(
        boxes,
        truth.boxes,
        truth.usable,
        high=positive_iou,
        low=negative_iou,
        allow_low_quality=low_quality,
        low_quality_iou=low_quality_iou,
        reassign_low_quality=reassign_low_quality,
        offset=offset,
    )
    matches = without_ignored(boxes, Matches(index, label), truth, offset=offset)
    return matches if valid is None else Matches(index, torch.where(valid, matches.label, -1))


def without_ignored(boxes: Tensor, matches: Matches, truth: GroundTruth, *, offset: float = 0.0) -> Matches:
    """Take from the background the candidates that lie in ignored regions.

    Args:
        boxes: Candidates, [N, 4], or [B, N, 4].
        matches: Theirs.
        truth: True boxes and ignored regions.
        offset: Width convention.

    Returns:
        The matches, such candidates with label -1.
    """
    if truth.ignored is None:
        return matches
    inside = _share_inside(boxes, truth.boxes, truth.ignored, offset) >= truth.ignore_iof
    return Matches(matches.truth_index, torch.where(inside & (matches.label == 0), -1, matches.label))


def _share_inside(boxes: Tensor, regions: Tensor, chosen: Tensor, offset: float) -> Tensor:
    """The largest share [B, N] of each box, [N, 4] or [B, N, 4], in one of the chosen of the regions [B, M, 4]."""
    area = (boxes[..., 2:] - boxes[..., :2] + offset).clamp(min=1e-6).prod(-1)
    most = area.new_zeros(len(regions), boxes.shape[-2])
    for slot in range(regions.shape[1]):  # one by one: all pairs of anchors and slots would fill the memory
        region = regions[:, slot, None]
        sides = torch.minimum(boxes[..., 2:], region[..., 2:]) - torch.maximum(boxes[..., :2], region[..., :2])
        share = (sides + offset).clamp(min=0).prod(-1) / area
        most = torch.where(chosen[:, slot, None], torch.maximum(most, share), most)
    return most


def subsample(
    boxes: Tensor, matches: Matches, truth: GroundTruth, keys: Tensor, *, count: int, fraction: float, num_classes: int
) -> Samples:
    """Draw candidates at random, objects up to a fraction and background for the rest.

    Args:
        boxes: [N, 4] or [B, N, 4] candidates.
        matches: Their labels.
        truth: Objects.
        keys: [B, N] random numbers; the largest are drawn.
        count: Samples per image.
        fraction: Largest share of positives.
        num_classes: Label of background.

    Returns:
        ``S = min(count, N)`` samples per image, positives first.
    """
    index, positive, valid = det_ops.subsample(matches.label, keys, count, fraction)
    chosen = boxes[index] if boxes.ndim == 2 else boxes.gather(1, index[..., None].expand(-1, -1, 4))
    most = min(index.shape[1], max(1, int(count * fraction)))
    return _samples(index, chosen, matches.truth_index.gather(1, index), positive, valid, truth, num_classes, most)


def label_all(boxes: Tensor, matches: Matches, truth: GroundTruth, *, num_classes: int) -> Samples:
    """Make samples of all candidates [B, N, 4] in their order, for cascade stages that do not sample again."""
    index = torch.arange(boxes.shape[1], device=boxes.device).expand(boxes.shape[:2])
    label = matches.label
    return _samples(index, boxes, matches.truth_index, label == 1, label >= 0, truth, num_classes, boxes.shape[1])


def _samples(
    index: Tensor,
    boxes: Tensor,
    truth_index: Tensor,
    positive: Tensor,
    valid: Tensor,
    truth: GroundTruth,
    num_classes: int,
    max_positives: int,
) -> Samples:
    return Samples(
        index=index,
        boxes=boxes,
        truth_boxes=truth.boxes.gather(1, truth_index[..., None].expand(-1, -1, 4)),
        truth_index=truth_index,
        labels=torch.where(positive, truth.labels.gather(1, truth_index), num_classes),
        positive=positive,
        valid=valid,
        max_positives=max_positives,
    )
