"""Box arithmetic: area, IoU, generalized IoU, clipping.

`N`, `M` boxes; `...` any leading dimensions, broadcast against each other. A box is `x1, y1, x2, y2` in pixels.
`offset` is 0 where a box ends at `x2` (width `x2 - x1`) and 1 in the legacy convention, where `x2` is the last pixel
inside (width `x2 - x1 + 1`). All functions are plain PyTorch: differentiable, traceable, on any device; half precision
is computed in float32.
"""

import torch
from torch import Tensor

from det_ops._checks import check_boxes, check_device, expect
from det_ops._operator import elementwise

elementwise("box_area", "box_iou", "clip_boxes", "generalized_box_iou")


def upcast(boxes: Tensor) -> Tensor:
    """Boxes or deltas, of any shape, in float32 where they are in half precision, else as they are.

    bfloat16 cannot tell coordinates apart that are less than 2 pixels from each other beyond 256.
    """
    return boxes.float() if boxes.dtype in (torch.bfloat16, torch.float16) else boxes


def box_area(boxes: Tensor, *, offset: float = 0.0) -> Tensor:
    """Area of each box.

    Args:
        boxes: `[..., 4]`, floating, `x1, y1, x2, y2` in pixels.
        offset: 1.0 for the legacy inclusive convention.

    Returns:
        `[...]` in square pixels, float32 or float64; negative for a box whose corners are swapped in one direction.

    Raises:
        ValueError: Wrong shape or dtype.
    """
    check_boxes(boxes, "boxes")
    return area(upcast(boxes), offset)


def area(boxes: Tensor, offset: float) -> Tensor:
    """Areas `[...]` of boxes `[..., 4]`, as `box_area`; nothing is checked."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    if offset:
        return (x2 - x1 + offset) * (y2 - y1 + offset)
    return (x2 - x1) * (y2 - y1)


def intersection_and_union(a: Tensor, b: Tensor, offset: float) -> tuple[Tensor, Tensor]:
    """Pairwise areas `[..., N, M]` of boxes `[..., N, 4]` and `[..., M, 4]`; nothing is checked."""
    a_left, b_left = a.unsqueeze(-2), b.unsqueeze(-3)
    sides = torch.minimum(a_left[..., 2:], b_left[..., 2:]) - torch.maximum(a_left[..., :2], b_left[..., :2])
    if offset:
        sides = sides + offset
    width, height = sides.clamp(min=0).unbind(-1)  # [..., N, M]
    intersection = width * height
    return intersection, area(a, offset).unsqueeze(-1) + area(b, offset).unsqueeze(-2) - intersection


def iou(a: Tensor, b: Tensor, offset: float) -> Tensor:
    """Pairwise IoU `[..., N, M]` of boxes `[..., N, 4]` and `[..., M, 4]`, as `box_iou`; nothing is checked."""
    intersection, union = intersection_and_union(a, b, offset)
    # Not a division by a clamped union: boxes without extent get exactly 0, and so does the gradient.
    return intersection / torch.where(intersection > 0, union, 1)


def _pair(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    check_boxes(a, "a", shape="..., N")
    check_boxes(b, "b", shape="..., M")
    expect(a.ndim >= 2, "a", "Tensor[..., N, 4]", a)
    expect(b.ndim >= 2, "b", "Tensor[..., M, 4]", b)
    check_device(b, "b", a, "a")
    return upcast(a), upcast(b)


def box_iou(a: Tensor, b: Tensor, *, offset: float = 0.0) -> Tensor:
    """Intersection over union of every pair of boxes.

    Args:
        a: `[..., N, 4]`, floating, `x1, y1, x2, y2` in pixels.
        b: `[..., M, 4]`, floating; leading dimensions broadcast against those of `a`.
        offset: 1.0 for the legacy inclusive convention.

    Returns:
        `[..., N, M]` in [0, 1], float32 or float64; 0 for boxes that do not meet, and for those without extent, as in
        detectron2 (torchvision gives NaN where both have none).

    Raises:
        ValueError: Wrong shape, dtype or device.
    """
    return iou(*_pair(a, b), offset)


def generalized_box_iou(a: Tensor, b: Tensor, *, offset: float = 0.0) -> Tensor:
    """Generalized IoU of every pair of boxes (Rezatofighi et al. 2019): IoU less the empty share of the hull.

    Args:
        a: `[..., N, 4]`, floating, `x1, y1, x2, y2` in pixels.
        b: `[..., M, 4]`, floating; leading dimensions broadcast against those of `a`.
        offset: 1.0 for the legacy inclusive convention.

    Returns:
        `[..., N, M]` in (-1, 1], float32 or float64.

    Raises:
        ValueError: Wrong shape, dtype or device.
    """
    a, b = _pair(a, b)
    intersection, union = intersection_and_union(a, b, offset)
    a_left, b_left = a.unsqueeze(-2), b.unsqueeze(-3)
    sides = torch.maximum(a_left[..., 2:], b_left[..., 2:]) - torch.minimum(a_left[..., :2], b_left[..., :2])
    width, height = (sides + offset).clamp(min=0).unbind(-1)
    hull = width * height
    return intersection / torch.where(intersection > 0, union, 1) - (hull - union) / torch.where(hull > 0, hull, 1)


def clip_boxes(boxes: Tensor, sizes: Tensor, *, offset: float = 0.0) -> Tensor:
    """Move box corners outside the image onto its border.

    Args:
        boxes: `[..., N, 4]`, floating, `x1, y1, x2, y2` in pixels.
        sizes: `[..., 2]`, height and width of each image, integer or floating; leading dimensions broadcast.
        offset: 1.0 for the legacy inclusive convention, whose last coordinates are width - 1 and height - 1.

    Returns:
        `[..., N, 4]`, dtype of `boxes`.

    Raises:
        ValueError: Wrong shape, dtype or device.
    """
    check_boxes(boxes, "boxes", shape="..., N")
    expect(boxes.ndim >= 2, "boxes", "Tensor[..., N, 4]", boxes)
    expect(sizes.shape[-1:] == (2,), "sizes", "Tensor[..., 2] of height, width", sizes)
    check_device(sizes, "sizes", boxes, "boxes")
    limit = sizes.flip(-1).to(boxes.dtype)
    if offset:
        limit = limit - offset
    return torch.minimum(boxes.clamp(min=0), torch.cat((limit, limit), -1).unsqueeze(-2))
