"""RoIAlign: regions of feature maps resampled to a fixed grid.

`multilevel_roi_align` reads all levels of a pyramid in one call; `roi_align` is the single-level special case with
torchvision's signature. Source: Mask R-CNN (He et al., 2017); `aligned=True` is detectron2's ROIAlignV2.
`R` regions, `P` pooled side, `B` images, `C` channels, `H, W` feature map.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from det_ops._checks import check_boxes, check_device, check_dtype, check_shape, describe, expect
from det_ops._layout import empty_nhwc, empty_regions
from det_ops._operator import operator
from det_ops.reference import roi_align as reference

__all__ = ["multilevel_roi_align", "roi_align"]


def roi_align(
    input: Tensor,  # noqa: A002 - torchvision's name
    rois: Tensor | list[Tensor],
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Tensor:
    """RoIAlign on one feature map, as `torchvision.ops.roi_align`.

    Args:
        input: `[B, C, H, W]` floating; channels-last memory is read without a copy.
        rois: `[R, 5]`, `image, x1, y1, x2, y2`, or one `[R_b, 4]` per image; multiplied by `spatial_scale` they are in
            feature pixels.
        output_size: Pooled side, or height and width.
        spatial_scale: Feature pixels per box pixel.
        sampling_ratio: Samples per cell and direction; 0 or less: `ceil(region / pooled)` per region.
        aligned: Shift by half a pixel, and do not enlarge regions to one feature pixel.

    Returns:
        `[R, C, P, P]` of the input's dtype, channels-last in memory. Gradient with respect to `input` only.

    Raises:
        ValueError: An argument has the wrong shape, dtype or device, `rois` is longer than the batch, or, on the CPU,
            an image is outside it (elsewhere see :func:`multilevel_roi_align`).
        RuntimeError: A second derivative is asked for.
    """
    if isinstance(rois, Tensor):
        expect(rois.ndim == 2 and rois.shape[1] == 5, "rois", "Tensor[R, 5] of image, x1, y1, x2, y2", rois)
        boxes, image_index = rois[:, 1:], rois[:, 0].to(torch.int64)
    else:
        for i, part in enumerate(rois):
            check_boxes(part, f"rois[{i}]", 2, f"R{i}")
        if len(rois) > len(input):
            raise ValueError(f"rois must be at most one tensor for each of {len(input)} images, got {len(rois)}")
        boxes = torch.cat(list(rois))
        image_index = torch.cat([torch.full_like(part[:, 0], i, dtype=torch.int64) for i, part in enumerate(rois)])
    return multilevel_roi_align(
        [input],
        boxes,
        image_index,
        torch.zeros_like(image_index),
        output_size=output_size,
        scales=[spatial_scale],
        sampling_ratio=sampling_ratio,
        aligned=aligned,
    )


def multilevel_roi_align(
    features: Sequence[Tensor],
    boxes: Tensor,
    image_index: Tensor,
    levels: Tensor,
    *,
    output_size: int | tuple[int, int],
    scales: Sequence[float],
    sampling_ratio: int,
    aligned: bool,
    memory_format: torch.memory_format = torch.channels_last,
) -> Tensor:
    """RoIAlign where each region names its image and its pyramid level.

    Args:
        features: One `[B, C, H_l, W_l]` floating map per level; channels-last memory is read without a copy.
        boxes: `[R, 4]` floating, `x1, y1, x2, y2` in image pixels.
        image_index: `[R]` int64, image of each region. Accelerators do not check it: they take the nearest image of the
            batch for one outside it.
        levels: `[R]` int64, index into `features`; -1 is padding: its output is zero and costs nothing.
        output_size: Pooled side, or height and width.
        scales: Feature pixels per image pixel of each level (1/4, 1/8, ...).
        sampling_ratio: Samples per cell and direction; 0 or less: `ceil(region / pooled)` per region.
        aligned: Shift by half a pixel, and do not enlarge regions to one feature pixel.
        memory_format: Of the result: `torch.channels_last`, for convolutions, or `torch.contiguous_format`, for linear
            layers, since its `flatten(1)` is no copy.

    Returns:
        `[R, C, P, P]` of the features' dtype. bfloat16 and float16 are accumulated in float32. Gradient with respect to
        `features` only. Non-finite boxes give zeros.

    Raises:
        ValueError: An argument has the wrong shape, dtype or device, there is no such layout, or, on the CPU, an image
            is outside the batch.
        RuntimeError: A second derivative is asked for.
    """
    features, scales = list(features), [float(scale) for scale in scales]
    pooled_height, pooled_width = (output_size, output_size) if isinstance(output_size, int) else output_size
    _check(features, boxes, image_index, levels, scales, pooled_height, pooled_width)
    layouts = (torch.channels_last, torch.contiguous_format)
    expect(memory_format in layouts, "memory_format", "torch.channels_last or torch.contiguous_format", memory_format)
    pooled, options = (pooled_height, pooled_width), (sampling_ratio, aligned, memory_format == torch.channels_last)
    return _multilevel_roi_align(features, boxes, image_index, levels, *pooled, scales, *options)


def _check(
    features: list[Tensor],
    boxes: Tensor,
    image_index: Tensor,
    levels: Tensor,
    scales: list[float],
    pooled_height: int,
    pooled_width: int,
) -> None:
    expect(len(features) >= 1, "features", "at least one map", features)
    first = features[0]
    for i, feature in enumerate(features):
        if feature.ndim != 4 or not feature.is_floating_point():
            raise ValueError(f"features[{i}] must be a floating Tensor[B, C, H, W], got {describe(feature)}")
        if feature.shape[:2] != first.shape[:2] or feature.dtype != first.dtype or feature.device != first.device:
            raise ValueError(
                f"features must agree in batch, channels, dtype and device: features[0] is {describe(first)}, "
                f"features[{i}] is {describe(feature)}"
            )
    check_boxes(boxes, "boxes", 2, "R")
    check_device(boxes, "boxes", first, "features")
    if boxes.shape[0] and (first.shape[0] == 0 or any(0 in feature.shape[2:] for feature in features)):
        raise ValueError(f"features must not be empty where there are boxes, got {[list(f.shape) for f in features]}")
    for tensor, name in ((image_index, "image_index"), (levels, "levels")):
        check_shape(tensor, name, (boxes.shape[0],))
        check_dtype(tensor, name, torch.int64)
        check_device(tensor, name, first, "features")
    expect(len(scales) == len(features), "scales", f"{len(features)} numbers, one per level", scales)
    expect(pooled_height > 0 and pooled_width > 0, "output_size", "positive", (pooled_height, pooled_width))


@operator(
    "multilevel_roi_align(Tensor[] features, Tensor boxes, Tensor image_index, Tensor levels, SymInt pooled_height, "
    "SymInt pooled_width, float[] scales, int sampling_ratio, bool aligned, bool channels_last) -> Tensor",
    reference=reference.multilevel_roi_align,
    functions=["multilevel_roi_align", "roi_align"],
    fallback="one gather per pair of taps, static, no host read",
)
def _multilevel_roi_align(
    features, boxes, _image_index, _levels, height, width, _scales, _sampling_ratio, _aligned, channels_last
):
    return empty_regions(features[0], boxes.shape[0], (height, width), channels_last)


def _save(ctx, inputs, output):  # noqa: ARG001 - the name is torch's
    features, boxes, image_index, levels, _, _, scales, sampling_ratio, aligned, _ = inputs
    ctx.save_for_backward(boxes, image_index, levels)
    ctx.sizes = [f.shape[2] for f in features], [f.shape[3] for f in features], features[0].shape[0]
    ctx.options = scales, sampling_ratio, aligned


def _apply(ctx, grad):
    grads = _multilevel_roi_align_backward(grad, *ctx.saved_tensors, *ctx.sizes, *ctx.options)
    return grads, None, None, None, None, None, None, None, None, None


@_multilevel_roi_align.gradient(
    "multilevel_roi_align_backward(Tensor grad, Tensor boxes, Tensor image_index, Tensor levels, SymInt[] heights, "
    "SymInt[] widths, SymInt batch, float[] scales, int sampling_ratio, bool aligned) -> Tensor[]",
    reference=reference.multilevel_roi_align_backward,
    save=_save,
    apply=_apply,
)
def _multilevel_roi_align_backward(
    grad, _boxes, _image_index, _levels, heights, widths, batch, _scales, _sampling_ratio, _aligned
):
    return [empty_nhwc(grad, batch, grad.shape[1], h, w) for h, w in zip(heights, widths, strict=True)]
