"""From dense outputs to a fixed number of detections."""

from collections.abc import Iterator

import torch
from torch import Tensor

from det_heads.coding import BoxCoder, DistanceCoder
from det_heads.one_stage.config import OneStageConfig
from det_heads.one_stage.head import DenseOutputs
from det_heads.rpn import flatten_levels
from det_ops import batched_nms, top_k

__all__ = ["select_dense"]


def select_dense(
    outputs: DenseOutputs,
    anchors: Tensor,
    image_sizes: Tensor,
    config: OneStageConfig,
    coder: BoxCoder | DistanceCoder,
) -> dict[str, Tensor]:
    """Select detections: best scores of each level, decoding of only those, NMS per class, best of all classes.

    The systems drop scores below the threshold first and take the best of the rest, which gives the same.

    Args:
        outputs: Of the head.
        anchors: [N, 4] of all levels.
        image_sizes: [B, 2] (height, width).
        config: Conventions.
        coder: Box coding.

    Returns:
        ``boxes`` [B, K, 4], ``scores`` [B, K], ``labels`` [B, K] int64 and ``valid`` [B, K] bool in network
        coordinates, best first, zero where not valid; ``K = min(max_detections, candidates)``.
    """
    parts = list(zip(*_candidates(outputs, anchors, config, coder), strict=True))
    scores, labels, boxes = (torch.cat(part, 1) for part in parts)
    if config.clip == "before":
        boxes = coder.clip(boxes, image_sizes)
    passed = (scores > config.score_threshold) & boxes.isfinite().all(-1)
    boxes = torch.where(passed[..., None], boxes, 0.0)
    index, kept = batched_nms(
        boxes,
        scores,
        labels,
        config.nms_threshold,
        max_output=min(config.max_detections, scores.shape[1]),
        valid=passed,
    )
    found = coder.clip(boxes.gather(1, index[..., None].expand(-1, -1, 4)), image_sizes)
    return {
        "boxes": torch.where(kept[..., None], found, 0.0),
        "scores": torch.where(kept, scores.gather(1, index), 0.0),
        "labels": torch.where(kept, labels.gather(1, index), 0),
        "valid": kept,
    }


def _candidates(
    outputs: DenseOutputs, anchors: Tensor, config: OneStageConfig, coder: BoxCoder | DistanceCoder
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The best of each level: scores [B, k], classes [B, k] and boxes [B, k, 4]."""
    start, classes = 0, config.num_classes
    for level, (logits, deltas) in enumerate(zip(outputs.logits, outputs.deltas, strict=True)):
        scores = flatten_levels([logits], classes).float().sigmoid()  # [B, n, C]
        if outputs.centerness:
            scores = (scores * flatten_levels([outputs.centerness[level]], 1).float().sigmoid()).sqrt()
        count = scores.shape[1]
        scores, candidate = top_k(scores.nan_to_num(0.0).flatten(1), min(config.candidates, count * classes))
        row = candidate // classes
        chosen = flatten_levels([deltas], 4).gather(1, row[..., None].expand(-1, -1, 4)).float()
        yield scores, candidate % classes, coder.decode(chosen, anchors[row + start])
        start += count
