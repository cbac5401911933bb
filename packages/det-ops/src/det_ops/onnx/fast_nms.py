"""Fast NMS in ONNX. `L` images, `N` boxes, `C` classes, `T` best boxes of each, `K` slots of the result."""

import math
from typing import Any

import numpy as np

from det_ops.onnx.nms import areas, overlaps
from det_ops.onnx.values import FLOAT, constant, flattened, op, unflattened
from det_ops.reference.nms import float32_floor


def fast_nms(
    boxes: Any, scores: Any, valid: Any, iou_threshold: float, top_k: int, max_output: int
) -> tuple[Any, Any, Any]:
    """Translate `det_ops::fast_nms` of boxes `[*, N, 4]` and scores `[*, C, N]` that are no NaN, both float32."""
    classes, shape = scores.shape[-2], [*boxes.shape[:-2], max_output]
    scores, slots = flattened(scores, 2), classes * top_k
    if valid is not None:
        scores = op.Where(op.Unsqueeze(flattened(valid, 1), [1]), scores, -math.inf)
    best, order = op.TopK(scores, [top_k], axis=2)  # [L, C, T]
    order = op.Reshape(order, [-1, slots])
    corners = op.Transpose(flattened(boxes, 2), perm=[0, 2, 1])  # [L, 4, N]
    corners = op.GatherElements(corners, op.Tile(op.Unsqueeze(order, [1]), [1, 4, 1]), axis=2)
    corners = op.Transpose(op.Reshape(corners, [-1, 4, classes, top_k]), perm=[0, 2, 1, 3])
    low, high = op.Split(op.Reshape(corners, [-1, 4, top_k]), axis=1, num_outputs=2)  # [L * C, 2, T]
    size = areas(low, high, 0.0)
    strikes = op.Cast(overlaps(low, high, size, low, high, size, float32_floor(iou_threshold), 0.0), to=FLOAT)
    better = constant(np.triu(np.ones((top_k, top_k), np.float32), 1))
    struck = op.Reshape(op.ReduceMax(op.Mul(strikes, better), [1], keepdims=0), [-1, slots])
    left = op.Where(op.Greater(struck, 0.0), -math.inf, op.Reshape(best, [-1, slots]))
    found, place = op.TopK(left, [max_output], axis=1)
    kept = op.Greater(found, -math.inf)
    index = op.Where(kept, op.GatherElements(order, place, axis=1), 0)
    label = op.Where(kept, op.Div(place, top_k), 0)
    return unflattened(index, shape), unflattened(label, shape), unflattened(kept, shape)
