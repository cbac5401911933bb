"""Masks as combinations of prototypes, cropped to boxes.

Shapes: `B` images, `R` masks of each, `K` prototypes, all of size `h x w`.
"""

import torch
from torch import Tensor

__all__ = ["assemble", "crop", "inside_boxes", "scale"]


def assemble(prototypes: Tensor, coefficients: Tensor) -> Tensor:
    """Logits of masks: the prototypes [B, K, h, w] weighted with the coefficients [B, R, K] -> [B, R, h, w]."""
    return torch.bmm(coefficients, prototypes.flatten(2)).unflatten(-1, prototypes.shape[-2:])


def crop(masks: Tensor, boxes: Tensor) -> Tensor:
    """Small masks [..., h, w] of the whole image, zero where they are not :func:`inside_boxes`."""
    down, across = _spans(boxes, (masks.shape[-2], masks.shape[-1]))
    # Rows, then columns: nothing else is as large as the masks.
    return (masks * down[..., :, None]).mul_(across[..., None, :])


def inside_boxes(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Which pixels of small masks of the whole image are in boxes or next to them (`layers/box_utils.py`, `crop`).

    Args:
        boxes: [..., 4] as fractions of the image, x1 <= x2, y1 <= y2.
        size: (h, w) of the masks.

    Returns:
        [..., h, w] bool.
    """
    down, across = _spans(boxes, size)
    return down[..., :, None] & across[..., None, :]


def _spans(boxes: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """[..., h] and [..., w] bool: which rows and columns."""
    height, width = size
    x1, y1, x2, y2 = boxes[..., None].unbind(-2)
    columns, rows = (torch.arange(n, device=boxes.device, dtype=boxes.dtype) for n in (width, height))
    across = (columns >= x1 * width - 1) & (columns < x2 * width + 1)
    down = (rows >= y1 * height - 1) & (rows < y2 * height + 1)
    return down, across


def scale(boxes: Tensor, image_shape: tuple[int, int], *, back: bool = False) -> Tensor:
    """Boxes [..., 4] from fractions of an image of (height, width) to pixels, or back."""
    height, width = image_shape
    # No tensor of the four factors, which would be copied from the host in every step.
    sides = zip(boxes.unbind(-1), (width, height, width, height), strict=True)
    return torch.stack([side / length if back else side * length for side, length in sides], -1)
