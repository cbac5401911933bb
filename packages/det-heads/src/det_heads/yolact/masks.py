"""Masks as combinations of prototypes, cropped to boxes.

Shapes: `B` images, `R` masks of each, `K` prototypes, all of size `h x w`.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from det_heads.postprocess import Original
from det_ops import paste_to_rle

__all__ = ["assemble", "crop", "inside_boxes", "masks_to_image", "scale"]


def assemble(prototypes: Tensor, coefficients: Tensor) -> Tensor:
    """Compute logits [B, R, h, w] of masks: prototypes [B, K, h, w] weighted with coefficients [B, R, K]."""
    return torch.bmm(coefficients, prototypes.flatten(2)).unflatten(-1, prototypes.shape[-2:])


def crop(masks: Tensor, boxes: Tensor) -> Tensor:
    """Set small masks [..., h, w] of the whole image to zero where they are not :func:`inside_boxes`."""
    down, across = _spans(boxes, (masks.shape[-2], masks.shape[-1]))
    # Rows, then columns: nothing else is as large as the masks.
    return (masks * down[..., :, None]).mul_(across[..., None, :])


def inside_boxes(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Tell which pixels of small masks of the whole image are in boxes or next to them (`layers/box_utils.py`).

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
    """Convert boxes [..., 4] from fractions of an image of (height, width) to pixels, or back."""
    height, width = image_shape
    # No tensor of the four factors, which would be copied from the host in every step.
    sides = zip(boxes.unbind(-1), (width, height, width, height), strict=True)
    return torch.stack([side / length if back else side * length for side, length in sides], -1)


def masks_to_image(found: Mapping[str, Tensor], boxes: Tensor, original: Original) -> dict[str, Any]:
    """Bring masks of the whole image to its original size, as :meth:`det_heads.Branch.to_image` does.

    Bilinear, and each only around its box, since it is zero elsewhere.

    Args:
        found: ``masks`` [N, h, w], and perhaps ``mask_scores`` [N].
        boxes: [N, 4] in original pixels.
        original: The image before it was resized.

    Returns:
        ``masks``, N COCO run lengths, and perhaps ``mask_scores``.
    """
    masks, size = found["masks"], (original.height, original.width)
    height, width = masks.shape[1:]
    cell = torch.tensor([size[1] / width, size[0] / height])
    # A cell because the mask ends one after its box, one that it fades into, and one beyond for the interpolation.
    low = ((boxes[:, :2] / cell).floor() - 2).clamp(min=0) - 1
    high = torch.minimum((boxes[:, 2:] / cell).ceil() + 2, torch.tensor([width, height])) + 1
    windows = torch.cat((low, high), 1)
    drawn: list[dict[str, Any]] = []
    for whole, window, place in zip(masks, windows.int().tolist(), windows * cell.repeat(2), strict=True):
        x1, y1, x2, y2 = window
        mask = whole[max(y1, 0) : y2, max(x1, 0) : x2][None]
        beyond = (int(x1 < 0), int(x2 > width), int(y1 < 0), int(y2 > height))
        if any(beyond):  # the outermost cells go on beyond the border of the image
            mask = F.pad(mask[None], beyond, mode="replicate")[0]
        drawn += paste_to_rle(mask, place[None], *size)
    scores = {"mask_scores": found["mask_scores"]} if "mask_scores" in found else {}
    return {"masks": drawn, **scores}
