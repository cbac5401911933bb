"""From network coordinates to the original images.

This is where the static program ends: results have as many rows as there are detections.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["ImageDetections", "Original", "ToImage", "to_image"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageDetections:
    """Detections of one image, on the CPU, best first.

    Attributes:
        boxes: [N, 4] float32, x1, y1, x2, y2 in pixels of the original image, no +1.
        scores: [N] float32.
        labels: [N] int64, 0..C-1.
        masks: N COCO run-length encodings ``{"size": [h, w], "counts": str}``, or None for a box detector.
        mask_scores: [N] float32, scores of the masks where the detector gives them other ones than its boxes.
        extra: What further branches found, by name, an entry for each detection.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: list[dict[str, Any]] | None = None
    mask_scores: Tensor | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


class Original(NamedTuple):
    """An image before it was resized.

    Attributes:
        height: In pixels.
        width: In pixels.
        scale: [2] (x, y) float32, resized / original.
    """

    height: int
    width: int
    scale: Tensor


ToImage = Callable[[Mapping[str, Tensor], Tensor, Original], dict[str, Any]]
"""How the results of a branch get to the original image, see :meth:`det_heads.Branch.to_image`."""


def to_image(
    detections: Mapping[str, Tensor],
    scales: Tensor,
    original_sizes: Sequence[tuple[int, int]],
    *,
    offset: float = 0.0,
    branches: Sequence[ToImage] = (),
) -> list[ImageDetections]:
    """Scale detections back, clip them to the image and drop empty ones.

    Args:
        detections: What a detector returned: ``boxes`` [B, K, 4], ``scores``, ``labels``, ``valid`` [B, K] and what
            its branches found, [B, K, ...].
        scales: [B, 2] (y, x), resized / original.
        original_sizes: (height, width) of each original image.
        offset: 1 where the boxes' x2, y2 are the last pixel of the object (maskrcnn-benchmark).
        branches: What brings the rest to the original image, one image at a time.

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
    factors = scales.float().cpu().flip(1)  # [B, 2] x, y
    return [
        _image({name: value[image] for name, value in host.items()}, Original(*size, factors[image]), offset, branches)
        for image, size in enumerate(original_sizes)
    ]


def _image(found: dict[str, Tensor], original: Original, offset: float, branches: Sequence[ToImage]) -> ImageDetections:
    """Detections [K, ...] of one image."""
    rows = found["valid"].nonzero().squeeze(1)  # [n]
    inner = found["boxes"][rows] / original.scale.repeat(2)  # [n, 4] in the detector's width convention
    outer = inner.clone()
    outer[:, 2:] += offset
    outer = torch.minimum(outer.clamp(min=0), torch.tensor([original.width, original.height]).repeat(2).to(outer.dtype))
    keep = (outer[:, 2:] > outer[:, :2]).all(dim=1)
    rows, inner, outer = rows[keep], inner[keep], outer[keep]
    found = {name: value[rows] for name, value in found.items()}
    results: dict[str, Any] = {}
    for branch in branches:
        results |= branch(found, inner if offset else outer, original)
    return ImageDetections(
        boxes=outer,
        scores=found["scores"],
        labels=found["labels"],
        masks=results.pop("masks", None),
        mask_scores=results.pop("mask_scores", None),
        extra=results,
    )
