"""Which level of a feature pyramid serves a box.

Source: Feature Pyramid Networks (Lin et al., 2017), equation 1; the systems differ in the width of a box and in where
the small constant against `log2(0)` goes, which moves boxes that lie exactly on a boundary.
"""

import torch
from torch import Tensor

from det_ops._checks import check_boxes, expect
from det_ops._operator import elementwise

__all__ = ["fpn_levels"]


def fpn_levels(
    boxes: Tensor,
    *,
    num_levels: int = 4,
    min_level: int = 2,
    canonical_level: int = 4,
    canonical_size: float = 224.0,
    epsilon: float = 1e-8,
    epsilon_inside_log: bool = True,
    offset: float = 0.0,
) -> Tensor:
    """Level of each box: `floor(canonical_level + log2(sqrt(area) / canonical_size))`, clamped.

    | system | arguments |
    |---|---|
    | detectron2 | the defaults |
    | maskrcnn-benchmark | `epsilon=1e-6, offset=1.0` |
    | torchvision | `epsilon=1e-6, epsilon_inside_log=False` |
    | mmdetection | `epsilon=1e-6, min_level=0, canonical_level=0, canonical_size=56.0` |

    Args:
        boxes: `[..., 4]` floating, `x1, y1, x2, y2` in pixels. Boxes of negative width or height count as empty.
        num_levels: Number of levels, at least 1.
        min_level: Name of the finest level (2 for P2).
        canonical_level: Level of a box of `canonical_size`.
        canonical_size: Side of that box in pixels.
        epsilon: Small constant that is added.
        epsilon_inside_log: Add it to the argument of the logarithm, rather than to the logarithm.
        offset: 1.0 for the legacy inclusive convention: added to widths and heights.

    Returns:
        `[...]` int64, index of the level counted from the finest: 0 .. num_levels - 1.

    Raises:
        ValueError: `boxes` is not a floating tensor of shape `[..., 4]`, or `num_levels` is below 1.
    """
    check_boxes(boxes, "boxes")
    expect(num_levels >= 1, "num_levels", "at least 1", num_levels)
    boxes = boxes.detach()
    if boxes.dtype != torch.float64:
        boxes = boxes.float()
    sides = (boxes[..., 2:] - boxes[..., :2] + offset).clamp(min=0)
    relative = (sides[..., 0] * sides[..., 1]).sqrt() / canonical_size
    if epsilon_inside_log:
        level = torch.floor(canonical_level + torch.log2(relative + epsilon))
    else:
        level = torch.floor(canonical_level + torch.log2(relative) + epsilon)
    # NaN boxes must not become an index outside the pyramid either.
    return level.clamp(min_level, min_level + num_levels - 1).nan_to_num(min_level).to(torch.int64) - min_level


elementwise("fpn_levels")
