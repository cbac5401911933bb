"""Masks of the mask head resampled into the image.

Only the pixels of each box are computed. `K` masks of side `S`, image of height `h` and width `w`.
"""

import torch
from torch import Tensor

from det_ops._checks import check_boxes, check_device, describe, expect
from det_ops._operator import host_operator, operator
from det_ops.reference import paste as reference
from det_ops.rle import RLE, texts_of

__all__ = ["paste_masks", "paste_to_rle"]

MODES = ("grid_sample", "expanded")


def paste_masks(
    masks: Tensor,
    boxes: Tensor,
    height: int,
    width: int,
    *,
    threshold: float | None = 0.5,
    mode: str = "grid_sample",
) -> Tensor:
    """Paste box-shaped masks into an image.

    `"grid_sample"` is detectron2's (and mmdetection's) way: bilinear at pixel centres, zero outside the mask, at most
    one pixel outside the box, inside where `value >= threshold`. `"expanded"` is maskrcnn-benchmark's and
    torchvision's: mask and box padded by one cell, box truncated to integers with inclusive width, resized, inside
    where `value > threshold`.

    Args:
        masks: `[K, S, S]` floating, probabilities.
        boxes: `[K, 4]` floating, `x1, y1, x2, y2` in pixels of the image.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        threshold: Probability from which a pixel is inside; None returns the probabilities.
        mode: `"grid_sample"` or `"expanded"`.

    Returns:
        `[K, h, w]` bool, or float32 with `threshold=None`. No gradient. Empty and non-finite boxes give nothing.

    Raises:
        ValueError: An argument has the wrong shape, dtype or device, or the mode is unknown.
    """
    _check(masks, boxes, height, width, mode)
    return _paste_masks(
        masks, boxes, height, width, None if threshold is None else float(threshold), mode == "expanded"
    )


def paste_to_rle(
    masks: Tensor,
    boxes: Tensor,
    height: int,
    width: int,
    *,
    threshold: float = 0.5,
    mode: str = "grid_sample",
) -> list[RLE]:
    """Result of `encode_rle(paste_masks(...))`, without holding all pasted masks in memory at once.

    Args:
        masks: `[K, S, S]` floating, probabilities.
        boxes: `[K, 4]` floating, `x1, y1, x2, y2` in pixels of the image.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        threshold: Probability from which a pixel is inside.
        mode: As in `paste_masks`.

    Returns:
        `K` dictionaries `{"size": [h, w], "counts": str}`.

    Raises:
        ValueError: An argument has the wrong shape, dtype or device, or the mode is unknown.
    """
    _check(masks, boxes, height, width, mode)
    masks, boxes = masks.detach().cpu(), boxes.detach().cpu()
    return [
        {"size": [height, width], "counts": text}
        for text in _paste_to_rle(masks, boxes, height, width, threshold, mode == "expanded")
    ]


def _check(masks: Tensor, boxes: Tensor, height: int, width: int, mode: str) -> None:
    if not (isinstance(masks, Tensor) and masks.ndim == 3 and masks.is_floating_point()):
        raise ValueError(f"masks must be a floating Tensor[K, S, S], got {describe(masks)}")
    check_boxes(boxes, "boxes", 2, "K")
    expect(boxes.shape[0] == masks.shape[0], "boxes", f"a Tensor[{masks.shape[0]}, 4], one per mask", boxes)
    expect(min(masks.shape[1:]) >= 1, "masks", "a Tensor[K, S, S] with S at least 1", masks)
    check_device(boxes, "boxes", masks, "masks")
    expect(height >= 1, "height", "at least 1", height)
    expect(width >= 1, "width", "at least 1", width)
    expect(mode in MODES, "mode", f"one of {', '.join(MODES)}", mode)


@operator(
    "paste_masks(Tensor masks, Tensor boxes, int height, int width, float? threshold, bool expanded) -> Tensor",
    reference=reference.paste_masks,
    functions=["paste_masks"],
    fallback="two batched matrix products per mask, no host read",
)
def _paste_masks(masks, _boxes, height, width, threshold, _expanded):
    return masks.new_empty((masks.shape[0], height, width), dtype=torch.float32 if threshold is None else torch.bool)


@host_operator("paste_to_rle", fallback="masks are copied to the host: strings live there")
def _paste_to_rle(masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float, expanded: bool) -> list[str]:
    texts = []
    for mask, box in zip(masks.split(16), boxes.split(16), strict=True):
        texts += texts_of(_paste_masks(mask, box, height, width, threshold, expanded))
    return texts
