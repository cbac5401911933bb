"""Masks as combinations of prototypes, cropped to boxes.

Shapes: `B` images, `R` masks of each, `K` prototypes, all of size `h x w`.
"""

import torch
from torch import Tensor

__all__ = ["assemble", "inside_boxes", "scale"]


def assemble(prototypes: Tensor, coefficients: Tensor) -> Tensor:
    """Logits of masks: the prototypes [B, K, h, w] weighted with the coefficients [B, R, K] -> [B, R, h, w]."""
    return torch.bmm(coefficients, prototypes.flatten(2)).unflatten(-1, prototypes.shape[-2:])


def inside_boxes(boxes: Tensor, size: tuple[int, int], padding: float = 1.0) -> Tensor:
    """Which pixels of small masks of the whole image are inside boxes (`layers/box_utils.py`, `crop`).

    Args:
        boxes: [..., 4] as fractions of the image, x1 <= x2, y1 <= y2.
        size: (h, w) of the masks.
        padding: Pixels of the masks added on each side.

    Returns:
        [..., h, w] bool.
    """
    height, width = size
    x1, y1, x2, y2 = boxes[..., None].unbind(-2)
    columns, rows = (torch.arange(n, device=boxes.device, dtype=boxes.dtype) for n in (width, height))
    across = (columns >= x1 * width - padding) & (columns < x2 * width + padding)
    down = (rows >= y1 * height - padding) & (rows < y2 * height + padding)
    return down[..., :, None] & across[..., None, :]


def scale(boxes: Tensor, image_shape: tuple[int, int], *, back: bool = False) -> Tensor:
    """Boxes [..., 4] from fractions of an image of (height, width) to pixels, or back."""
    height, width = image_shape
    # No tensor of the four factors, which would be copied from the host in every step.
    sides = zip(boxes.unbind(-1), (width, height, width, height), strict=True)
    return torch.stack([side / length if back else side * length for side, length in sides], -1)
