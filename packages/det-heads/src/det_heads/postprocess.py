"""From network coordinates to the original images: boxes, and masks as COCO run lengths.

This is where the static program ends: results have as many rows as there are detections.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from det_ops import paste_to_rle

__all__ = ["ImageDetections", "to_image"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageDetections:
    """Detections of one image, on the CPU, best first.

    Attributes:
        boxes: [n, 4] float32, x1, y1, x2, y2 in pixels of the original image, no +1.
        scores: [n] float32.
        labels: [n] int64, 0..C-1.
        masks: n COCO run-length encodings ``{"size": [h, w], "counts": str}``, or None for a box detector.
        mask_scores: [n] float32, scores of the masks where the detector gives them other ones than its boxes.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: list[dict[str, Any]] | None
    mask_scores: Tensor | None = None


def to_image(
    detections: Mapping[str, Tensor],
    scales: Tensor,
    original_sizes: Sequence[tuple[int, int]],
    *,
    offset: float = 0.0,
    paste: Literal["grid_sample", "expanded", "image"] = "grid_sample",
    paste_threshold: float = 0.5,
) -> list[ImageDetections]:
    """Scales detections back, clips them to the image, drops empty ones and pastes their masks.

    Args:
        detections: What a detector returned: ``boxes`` [B, K, 4], ``scores``, ``labels``, ``valid`` [B, K] and
            perhaps ``masks`` [B, K, S, S] (or [B, K, h, w] of the whole image) and ``mask_scores`` [B, K].
        scales: [B, 2] (y, x), resized / original.
        original_sizes: (height, width) of each original image.
        offset: 1 where the boxes' x2, y2 are the last pixel of the object (maskrcnn-benchmark).
        paste: How masks map onto the image, see :class:`~det_heads.config.MaskHeadConfig`; `image`: they are the
            whole image, smaller, and already cropped (YOLACT).
        paste_threshold: Probability from which a pixel belongs to the mask.

    Returns:
        One entry per image.

    Raises:
        ValueError: The number of images differs between the arguments.
    """
    images = detections["boxes"].shape[0]
    if scales.shape != (images, 2) or len(original_sizes) != images:
        raise ValueError(
            f"scales must be [{images}, 2] and original_sizes have {images} entries, "
            f"got {tuple(scales.shape)} and {len(original_sizes)}"
        )
    host = {
        name: value.detach().float().cpu() if value.is_floating_point() else value.cpu()
        for name, value in detections.items()
    }
    factors = scales.float().cpu().flip(1).repeat(1, 2)  # x, y, x, y
    results = []
    for image, (height, width) in enumerate(original_sizes):
        valid = host["valid"][image]
        inner = host["boxes"][image][valid] / factors[image]
        outer = inner.clone()
        outer[:, 2:] += offset
        outer = torch.minimum(outer.clamp(min=0), torch.tensor([width, height, width, height], dtype=outer.dtype))
        keep = (outer[:, 2:] > outer[:, :2]).all(dim=1)
        masks = None
        if "masks" in host:
            masks = _draw(
                host["masks"][image][valid][keep],
                (inner if offset else outer)[keep],
                (height, width),
                paste_threshold,
                paste,
            )
        results.append(
            ImageDetections(
                boxes=outer[keep],
                scores=host["scores"][image][valid][keep],
                labels=host["labels"][image][valid][keep],
                masks=masks,
                mask_scores=host["mask_scores"][image][valid][keep] if "mask_scores" in host else None,
            )
        )
    return results


def _draw(
    masks: Tensor,
    boxes: Tensor,
    size: tuple[int, int],
    threshold: float,
    paste: Literal["grid_sample", "expanded", "image"],
) -> list[dict[str, Any]]:
    if paste != "image":
        return paste_to_rle(masks, boxes, *size, threshold=threshold, mode=paste)
    return _resize(masks, boxes, size, threshold)


def _resize(masks: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float) -> list[dict[str, Any]]:
    """Bilinear, of masks of the whole image; each only around its box, since it is zero elsewhere."""
    if not len(masks):
        return []
    rows, columns = masks.shape[1:]
    cell = torch.tensor([size[1] / columns, size[0] / rows])
    # A cell because the mask ends one after its box, and one that it fades into.
    low = ((boxes[:, :2] / cell).floor() - 2).clamp(min=0).long()
    high = torch.minimum((boxes[:, 2:] / cell).ceil() + 2, torch.tensor([columns, rows])).long()
    # The outermost cells go on beyond the border of the image.
    padded = F.pad(masks[None], (1, 1, 1, 1), mode="replicate")[0]
    drawn = []
    for mask, (x1, y1), (x2, y2) in zip(padded, low.tolist(), high.tolist(), strict=True):
        box = torch.tensor([[x1 - 1, y1 - 1, x2 + 1, y2 + 1]]) * cell.repeat(2)
        drawn += paste_to_rle(mask[None, y1 : y2 + 2, x1 : x2 + 2], box, *size, threshold=threshold)
    return drawn
