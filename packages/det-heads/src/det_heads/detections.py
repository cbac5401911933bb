"""From class probabilities and box deltas to a fixed number of detections."""

import math

import torch
from torch import Tensor

from det_heads.coding import BoxCoder
from det_heads.config import BoxHeadConfig
from det_heads.suppression import soft_nms
from det_ops import batched_nms, top_k

__all__ = ["select_detections"]


def select_detections(
    probabilities: Tensor,
    deltas: Tensor,
    boxes: Tensor,
    valid: Tensor,
    image_sizes: Tensor,
    config: BoxHeadConfig,
    coder: BoxCoder,
) -> dict[str, Tensor]:
    """Select detections: score threshold, decoding of what is left, clipping, NMS per class, best of all classes.

    The number of candidates is bounded without looking at the scores: the probabilities of a box sum to one, so at most
    ``1 / score_threshold`` of its classes can pass. Where they do not sum to one (sigmoids) the best so many are taken.

    Args:
        probabilities: [B, R, C + 1] float32, background last.
        deltas: [B, R, 4C], or [B, R, 4] when class-agnostic.
        boxes: [B, R, 4] that the deltas refine.
        valid: [B, R] bool.
        image_sizes: [B, 2] (height, width).
        config: Conventions.
        coder: Box coding.

    Returns:
        ``boxes`` [B, K, 4], ``scores`` [B, K], ``labels`` [B, K] int64 and ``valid`` [B, K] bool in network
        coordinates, best first, zero where not valid; ``K = min(max_detections, candidates)``.
    """
    batch, count, classes = probabilities.shape[0], probabilities.shape[1], probabilities.shape[2] - 1
    usable = valid & boxes.isfinite().all(-1)
    scores = probabilities[..., :classes].float().nan_to_num(0.0)
    scores = torch.where(usable[..., None], scores, 0.0).reshape(batch, -1)
    bound = count * classes
    if config.score_threshold > 0:
        bound = min(bound, math.floor(count / config.score_threshold))
    scores, candidate = top_k(scores, bound)
    row, label = candidate // classes, candidate % classes

    column = row if config.class_agnostic else candidate
    decoded = coder.decode(
        deltas.reshape(batch, -1, 4).gather(1, column[..., None].expand(-1, -1, 4)).float(),
        boxes.gather(1, row[..., None].expand(-1, -1, 4)),
    )
    decoded = coder.clip(decoded, image_sizes)
    passed = (scores > config.score_threshold) & decoded.isfinite().all(-1) & usable.gather(1, row)
    if config.min_size is not None:
        passed = passed & (coder.sides(decoded) >= config.min_size).all(-1)
    decoded = torch.where(passed[..., None], decoded, 0.0)

    group = torch.zeros_like(label) if config.nms_across_classes else label
    count = min(config.max_detections, bound)
    if config.nms == "hard":
        index, kept = batched_nms(
            decoded,
            scores,
            group,
            config.nms_threshold,
            max_output=count,
            valid=passed,
            offset=coder.offset,
        )
        found = scores.gather(1, index)
    else:
        index, found, kept = soft_nms(
            decoded,
            scores,
            group,
            decay=config.nms,
            iou_threshold=config.nms_threshold,
            sigma=config.soft_nms_sigma,
            max_output=count,
            valid=passed,
        )
    return {
        "boxes": torch.where(kept[..., None], decoded.gather(1, index[..., None].expand(-1, -1, 4)), 0.0),
        "scores": torch.where(kept, found, 0.0),
        "labels": torch.where(kept, label.gather(1, index), 0),
        "valid": kept,
    }
