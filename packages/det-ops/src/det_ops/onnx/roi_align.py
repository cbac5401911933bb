"""RoIAlign over a pyramid in ONNX: `RoiAlign` of every region on each level, of which the region's own is taken.

The regions of other levels, padding and what is not finite become a region of one pixel there: which region belongs to
which level is data, and shapes must not depend on it. `R` regions, `C` channels, `P` pooled side.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from det_ops.onnx.values import constant, in_dtype_of, in_float32, op


def multilevel_roi_align(
    features: Sequence[Any],
    boxes: Any,
    image_index: Any,
    levels: Any,
    pooled_height: int,
    pooled_width: int,
    scales: Sequence[float],
    sampling_ratio: int,
    aligned: bool,
    channels_last: bool,  # noqa: ARG001 - ONNX knows no layouts
) -> Any:
    """Translate `det_ops::multilevel_roi_align` of features `[B, C, H, W]` and boxes `[R, 4]`, pooled in float32."""
    boxes = in_float32(boxes)
    # What is not finite is not smaller than infinity either; NaN compares as false.
    finite = op.Less(op.ReduceMax(op.Abs(boxes), [1], keepdims=1), 1e30)  # [R, 1]
    found = None
    for level, (feature, scale) in enumerate(zip(features, scales, strict=True)):
        live = op.And(op.Equal(op.Unsqueeze(levels, [1]), level), finite)  # [R, 1]
        pixel = constant(np.array([[0, 0, 1 / scale, 1 / scale]], np.float32))
        values = op.RoiAlign(
            in_float32(feature),
            op.Where(live, boxes, pixel),
            image_index,
            coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
            mode="avg",
            output_height=pooled_height,
            output_width=pooled_width,
            sampling_ratio=max(sampling_ratio, 0),
            spatial_scale=scale,
        )
        found = op.Where(op.Unsqueeze(live, [2, 3]), values, 0.0 if found is None else found)
    return in_dtype_of(found, features[0])
