"""Pasting on the CPU."""

import torch
from torch import Tensor

from det_ops.backends.cpu import function


def paste_masks(
    masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float | None, expanded: bool
) -> Tensor:
    """`[K, h, w]` bool, or float32 without a threshold."""
    masks, boxes = masks.to(torch.float32).contiguous(), boxes.to(torch.float32).contiguous()
    out = torch.empty((len(masks), height, width), dtype=torch.float32 if threshold is None else torch.bool)
    function("paste_masks")(
        masks.data_ptr(),
        boxes.data_ptr(),
        *masks.shape,
        height,
        width,
        threshold or 0.0,
        threshold is not None,
        expanded,
        torch.get_num_threads(),
        out.data_ptr(),
    )
    return out


def paste_to_rle(masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float, expanded: bool) -> list[str]:
    """Compressed strings, one a mask."""
    masks, boxes = masks.to(torch.float32).contiguous(), boxes.to(torch.float32).contiguous()
    return function("paste_to_rle")(
        masks.data_ptr(), boxes.data_ptr(), *masks.shape, height, width, threshold, expanded, torch.get_num_threads()
    )
