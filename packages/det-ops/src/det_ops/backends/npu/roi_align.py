"""RoIAlign by torch_npu's `npu_roi_align` and `npu_roi_alignbk`: float32, a level at a time, every region on each.

The regions of other levels, padding and what is not finite become a region of one pixel, and their results are left
out: which region belongs to which level is data, and shapes must not depend on it.
"""

from typing import Any

import torch
from torch import Tensor

from det_ops._layout import empty_nhwc, lay_out
from det_ops.reference import roi_align as reference


def _operators() -> Any:
    return torch.ops.npu


def multilevel_roi_align(
    features: list[Tensor],
    boxes: Tensor,
    image_index: Tensor,
    levels: Tensor,
    pooled_height: int,
    pooled_width: int,
    scales: list[float],
    sampling_ratio: int,
    aligned: bool,
    channels_last: bool,
) -> Tensor:
    """`[R, C, P, P]` of the features' dtype; see `det_ops.multilevel_roi_align`."""
    if not hasattr(_operators(), "npu_roi_align"):
        return reference.multilevel_roi_align(
            features,
            boxes,
            image_index,
            levels,
            pooled_height,
            pooled_width,
            scales,
            sampling_ratio,
            aligned,
            channels_last,
        )
    first, pooled = features[0], (pooled_height, pooled_width)
    out = torch.zeros((len(boxes), first.shape[1], *pooled), dtype=torch.float32, device=first.device)
    if out.numel() == 0:
        return lay_out(out.to(first.dtype), channels_last)
    for level, (feature, scale) in enumerate(zip(features, scales, strict=True)):
        live, rois = _regions(boxes, image_index, levels, level, scale, first.shape[0])
        values = _operators().npu_roi_align(
            feature.float().contiguous(), rois, scale, *pooled, max(sampling_ratio, 0), _mode(aligned)
        )
        out = torch.where(live[:, None, None, None], values, out)
    return lay_out(out.to(first.dtype), channels_last)


def multilevel_roi_align_backward(
    grad: Tensor,
    boxes: Tensor,
    image_index: Tensor,
    levels: Tensor,
    heights: list[int],
    widths: list[int],
    batch: int,
    scales: list[float],
    sampling_ratio: int,
    aligned: bool,
) -> list[Tensor]:
    """Gradients `[B, C, H, W]` of the features, channels-last in memory, of the dtype of `grad`."""
    if not hasattr(_operators(), "npu_roi_alignbk"):
        return reference.multilevel_roi_align_backward(
            grad, boxes, image_index, levels, heights, widths, batch, scales, sampling_ratio, aligned
        )
    channels, pooled_height, pooled_width = grad.shape[1:]
    grads = []
    for level, (height, width, scale) in enumerate(zip(heights, widths, scales, strict=True)):
        out = empty_nhwc(grad, batch, channels, height, width)
        grads.append(out)
        if grad.numel() == 0 or out.numel() == 0:
            out.zero_()
            continue
        live, rois = _regions(boxes, image_index, levels, level, scale, batch)
        own = torch.where(live[:, None, None, None], grad, 0.0).float().contiguous()
        # Width before height, and the mode must be given: it is 1 where it is left out.
        out.copy_(
            _operators().npu_roi_alignbk(
                own,
                rois,
                [batch, channels, height, width],
                pooled_width,
                pooled_height,
                scale,
                max(sampling_ratio, 0),
                _mode(aligned),
            )
        )
    return grads


def _mode(aligned: bool) -> int:
    """`roi_end_mode` in both directions, as CANN defines it: 0 is torchvision's aligned=False, 2 its aligned=True.

    1 (ends are inclusive) and 3 are of other frameworks.
    """
    return 2 if aligned else 0


def _regions(
    boxes: Tensor, image_index: Tensor, levels: Tensor, level: int, scale: float, batch: int
) -> tuple[Tensor, Tensor]:
    """Which regions are of this level `[R]`, and all as `[R, 5]` float32: image, x1, y1, x2, y2."""
    boxes = boxes.float()
    live = (levels == level) & boxes.isfinite().all(1)
    # One pixel of the map, which every mode samples at least once.
    pixel = (torch.arange(4, device=boxes.device) >= 2).float() / scale
    index = image_index.clamp(0, batch - 1).float()
    return live, torch.cat((index[:, None], torch.where(live[:, None], boxes, pixel)), 1)
