"""RoIAlign on the CPU."""

import torch
from torch import Tensor

from det_ops._layout import empty_nhwc, empty_regions, nhwc
from det_ops.backends.cpu import compute_type, function


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
    """`[R, C, P, P]` of the features' dtype; sums in float32, or float64."""
    first = features[0]
    dtype = compute_type(first)
    maps = [nhwc(feature.to(dtype)) for feature in features]
    out = empty_regions(first, len(boxes), (pooled_height, pooled_width), channels_last, dtype)
    boxes, image_index, levels = boxes.to(dtype).contiguous(), image_index.contiguous(), levels.contiguous()
    function("roi_align_forward", dtype)(
        [feature.data_ptr() for feature in maps],
        [feature.shape[1] for feature in maps],
        [feature.shape[2] for feature in maps],
        scales,
        *first.shape[:2],
        boxes.data_ptr(),
        image_index.data_ptr(),
        levels.data_ptr(),
        len(boxes),
        pooled_height,
        pooled_width,
        sampling_ratio,
        aligned,
        channels_last,
        torch.get_num_threads(),
        out.data_ptr(),
    )
    return out.to(first.dtype)


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
    """Gradients `[B, C, H, W]` of the features, channels-last, of the dtype of `grad`."""
    dtype = compute_type(grad)
    channels_last = not grad.is_contiguous()
    values = nhwc(grad.to(dtype)) if channels_last else grad.to(dtype)
    results = [empty_nhwc(grad, batch, grad.shape[1], h, w, dtype) for h, w in zip(heights, widths, strict=True)]
    boxes, image_index, levels = boxes.to(dtype).contiguous(), image_index.contiguous(), levels.contiguous()
    function("roi_align_backward", dtype)(
        [result.data_ptr() for result in results],
        heights,
        widths,
        scales,
        batch,
        grad.shape[1],
        boxes.data_ptr(),
        image_index.data_ptr(),
        levels.data_ptr(),
        len(boxes),
        *grad.shape[2:],
        sampling_ratio,
        aligned,
        channels_last,
        torch.get_num_threads(),
        values.data_ptr(),
    )
    return [result.to(grad.dtype) for result in results]
