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
        rows = host["valid"][image].nonzero().squeeze(1)
        inner = host["boxes"][image][rows] / factors[image]
        outer = inner.clone()
        outer[:, 2:] += offset
        outer = torch.minimum(outer.clamp(min=0), torch.tensor([width, height, width, height], dtype=outer.dtype))
        keep = (outer[:, 2:] > outer[:, :2]).all(dim=1)
        rows, inner, outer = rows[keep], inner[keep], outer[keep]
        masks = None
        if "masks" in host:
            drawn = inner if offset else outer
            masks = _draw(host["masks"][image], rows, drawn, (height, width), paste_threshold, paste)
        results.append(
            ImageDetections(
                boxes=outer,
                scores=host["scores"][image][rows],
                labels=host["labels"][image][rows],
                masks=masks,
                mask_scores=host["mask_scores"][image][rows] if "mask_scores" in host else None,
            )
        )
    return results


def _draw(
    masks: Tensor,
    rows: Tensor,
    boxes: Tensor,
    size: tuple[int, int],
    threshold: float,
    paste: Literal["grid_sample", "expanded", "image"],
) -> list[dict[str, Any]]:
    """The masks [K, S, S] of `rows` [n], at their boxes [n, 4]."""
    if paste != "image":
        return paste_to_rle(masks[rows], boxes, *size, threshold=threshold, mode=paste)
    return _resize(masks, rows, boxes, size, threshold)


def _resize(
    masks: Tensor, rows: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float
) -> list[dict[str, Any]]:
    """Bilinear, of masks of the whole image; each only around its box, since it is zero elsewhere."""
    height, width = masks.shape[1:]
    cell = torch.tensor([size[1] / width, size[0] / height])
    # A cell because the mask ends one after its box, one that it fades into, and one beyond for the interpolation.
    low = ((boxes[:, :2] / cell).floor() - 2).clamp(min=0) - 1
    high = torch.minimum((boxes[:, 2:] / cell).ceil() + 2, torch.tensor([width, height])) + 1
    windows = torch.cat((low, high), 1)
    places = windows * cell.repeat(2)
    drawn = []
    for row, window, place in zip(rows.tolist(), windows.int().tolist(), places, strict=True):
        x1, y1, x2, y2 = window
        mask = masks[row, max(y1, 0) : y2, max(x1, 0) : x2][None]
        beyond = (int(x1 < 0), int(x2 > width), int(y1 < 0), int(y2 > height))
        if any(beyond):  # the outermost cells go on beyond the border of the image
            mask = F.pad(mask[None], beyond, mode="replicate")[0]
        drawn += paste_to_rle(mask, place[None], *size, threshold=threshold)
    return drawn
