"""From the network's outputs to a fixed number of detections (`layers/functions/detection.py`).

Shapes: `B` images, `N` priors, `C` classes, `K` detections.
"""

import math

import torch
from torch import Tensor

from det_heads.yolact.config import YolactConfig
from det_heads.yolact.losses import CODING
from det_heads.yolact.masks import scale
from det_ops import batched_nms, decode_boxes, fast_nms, top_k

__all__ = ["select"]


def select(
    deltas: Tensor, logits: Tensor, priors: Tensor, image_shape: tuple[int, int], config: YolactConfig
) -> tuple[dict[str, Tensor], Tensor]:
    """The detections left by non-maximum suppression.

    Args:
        deltas: [B, N, 4].
        logits: [B, N, C + 1], background first.
        priors: [N, 4] as fractions of the image.
        image_shape: (height, width) of the input.
        config: Threshold and kind of suppression.

    Returns:
        ``boxes`` [B, K, 4] in pixels of the input, not clipped, ``scores``, ``labels`` and ``valid`` [B, K], best
        first; and the priors they are of, [B, K] int64.
    """
    scores = logits.float().softmax(-1)[..., 1:]
    boxes = decode_boxes(deltas.float(), priors.expand_as(deltas), CODING, max_log_scale=math.inf)
    boxes = scale(boxes, image_shape)
    finite = boxes.isfinite().all(-1)
    boxes = torch.where(finite[..., None], boxes, 0.0)
    valid = (scores.amax(-1) > config.score_threshold) & finite
    if config.nms == "traditional":
        index, labels, kept, best = _traditional(boxes, scores, valid, config)
    else:
        crossing = config.nms == "cross_class"
        index, labels, kept = fast_nms(
            boxes,
            scores.transpose(1, 2),
            config.nms_threshold,
            max_output=config.nms_top_k if crossing else config.max_detections,
            top_k=config.nms_top_k,
            cross_class=crossing,
            valid=valid,
        )
        best = scores.gather(1, index[..., None].expand(-1, -1, scores.shape[-1]))
        best = best.gather(2, labels[..., None]).squeeze(2)
    found = {
        "boxes": torch.where(kept[..., None], boxes.gather(1, index[..., None].expand(-1, -1, 4)), 0.0),
        "scores": torch.where(kept, best, 0.0),
        "labels": labels,
        "valid": kept,
    }
    return found, index


def _traditional(
    boxes: Tensor, scores: Tensor, valid: Tensor, config: YolactConfig
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Greedy per class, of every class above the threshold: as many as probabilities that sum to one can have."""
    count, classes = scores.shape[1:]
    bound = min(count * classes, math.floor(count / config.score_threshold))
    scores, candidate = top_k(scores.flatten(1), bound)
    prior, label = candidate // classes, candidate % classes
    index, kept = batched_nms(
        boxes.gather(1, prior[..., None].expand(-1, -1, 4)),
        scores,
        label,
        config.nms_threshold,
        max_output=min(config.max_detections, bound),
        valid=(scores > config.score_threshold) & valid.gather(1, prior),
        offset=1.0,
    )
    return prior.gather(1, index), torch.where(kept, label.gather(1, index), 0), kept, scores.gather(1, index)
