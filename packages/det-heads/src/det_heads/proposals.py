"""From RPN outputs to a fixed number of proposals."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from det_heads.coding import BoxCoder
from det_heads.config import RPNConfig
from det_ops import batched_nms, top_k

__all__ = ["Proposals", "select_proposals"]


class Proposals(NamedTuple):
    """Proposals of a batch, best first in every image.

    Attributes:
        boxes: [B, K, 4] float32, within the image; zero where not valid.
        scores: [B, K] float32, in the unit of ``RPNConfig.nms_scores``; zero where not valid.
        valid: [B, K] bool.
        levels: [B, K] int64, the pyramid level whose anchor each came from.
    """

    boxes: Tensor
    scores: Tensor
    valid: Tensor
    levels: Tensor


def select_proposals(
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    anchors: Tensor,
    image_sizes: Tensor,
    config: RPNConfig,
    coder: BoxCoder,
    *,
    training: bool,
) -> Proposals:
    """Select proposals: top-k per level, decoding of only those, clipping, size filter, NMS per level, top-k over all.

    Non-finite boxes or scores are dropped.

    Args:
        logits: Per level [B, A, H, W].
        deltas: Per level [B, 4A, H, W].
        anchors: [N, 4] of all levels.
        image_sizes: [B, 2] (height, width).
        config: RPN conventions.
        coder: Box coding.
        training: Which of the top-k counts hold.

    Returns:
        ``K = min(post_nms, candidates)`` proposals per image.
    """
    pre_nms = config.pre_nms_train if training else config.pre_nms_test
    post_nms = config.post_nms_train if training else config.post_nms_test
    over_batch = training and config.post_nms_train_scope == "batch"
    if over_batch and config.post_nms_train_images is not None:
        post_nms = max(1, round(post_nms * logits[0].shape[0] / config.post_nms_train_images))
    scores, boxes, levels = [], [], []
    start = 0
    for level, (logit, delta) in enumerate(zip(logits, deltas, strict=True)):
        level_scores, level_deltas, index = _best(logit, delta, pre_nms, config.pre_nms_scores)
        if config.nms_scores == "sigmoid" and config.pre_nms_scores == "logit":
            level_scores = level_scores.sigmoid()
        decoded = coder.decode(level_deltas, anchors[index + start])  # [B, k, 4]
        scores.append(level_scores)
        boxes.append(decoded)
        levels.append(torch.full_like(index, level))
        start += logit.shape[1] * logit.shape[2] * logit.shape[3]
    all_boxes = coder.clip(torch.cat(boxes, dim=1), image_sizes)
    all_scores = torch.cat(scores, dim=1)
    all_levels = torch.cat(levels, dim=1)

    sides = coder.sides(all_boxes)
    large = sides >= config.min_size if config.min_size_inclusive else sides > config.min_size
    valid = large.all(-1) & all_boxes.isfinite().all(-1) & all_scores.isfinite()
    all_boxes = torch.where(valid[..., None], all_boxes, 0.0)
    all_scores = torch.where(valid, all_scores, 0.0)

    index, kept = batched_nms(
        all_boxes,
        all_scores,
        [level.shape[1] for level in scores],
        config.nms_threshold,
        max_output=min(post_nms, all_scores.shape[1]),
        valid=valid,
        offset=coder.offset,
    )
    kept_scores = all_scores.gather(1, index)
    if over_batch:
        kept = _best_of_batch(kept_scores, kept, post_nms)
    kept_boxes = all_boxes.gather(1, index[..., None].expand(-1, -1, 4))
    return Proposals(
        boxes=torch.where(kept[..., None], kept_boxes, 0.0),
        scores=torch.where(kept, kept_scores, 0.0),
        valid=kept,
        levels=all_levels.gather(1, index),
    )


def _best(logits: Tensor, deltas: Tensor, count: int, unit: str) -> tuple[Tensor, Tensor, Tensor]:
    """The best anchors of one level: scores [B, k], deltas [B, k, 4] and their index [B, k] within the level."""
    batch = logits.shape[0]
    scores = logits.permute(0, 2, 3, 1).reshape(batch, -1).float()
    if unit == "sigmoid":
        scores = scores.sigmoid()
    scores, index = top_k(scores, min(count, scores.shape[1]))
    deltas = deltas.permute(0, 2, 3, 1).reshape(batch, -1, 4)
    return scores, deltas.gather(1, index[..., None].expand(-1, -1, 4)).float(), index


def _best_of_batch(scores: Tensor, valid: Tensor, count: int) -> Tensor:
    """Restricts validity to the ``count`` best proposals of all images together: [B, K] bool."""
    flat = torch.where(valid, scores, -torch.inf).flatten()
    best = top_k(flat, min(count, flat.shape[0]))[1]
    chosen = torch.zeros_like(flat, dtype=torch.bool).scatter(0, best, True)
    return chosen.view_as(valid) & valid
