"""Fast NMS: suppression in one step for all pairs of boxes and all classes.

Greedy NMS lets a box suppress others only if it stays itself, so boxes wait for each other. Fast NMS lets suppressed
boxes suppress too: it removes slightly more and needs no order of steps. Source: YOLACT (Bolya et al., 2019), 4.2.
`N` boxes, `C` classes, `K` slots of the result, `*` any leading dimensions (images, or nothing).
"""

import math

import torch
from torch import Tensor

from det_ops._checks import check_boxes, check_device, check_shape, expect
from det_ops._operator import operator
from det_ops.reference import fast_nms as reference


def fast_nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    *,
    max_output: int,
    top_k: int = 200,
    cross_class: bool = False,
    valid: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Keep, of the best boxes of each class, those that no better box of the class overlaps too much.

    Every box stands for every class with the score it has there, and may stay for several. A better box suppresses
    whether or not it is suppressed itself. Of equal scores the lower class goes first, then the lower index.

    Args:
        boxes: `[*, N, 4]`, floating, `x1, y1, x2, y2` in pixels, the same for all classes.
        scores: `[*, C, N]`, floating, without a class for background. Any strides: a transposed `[*, N, C]` is not
            copied. A score of -inf or NaN takes a box out of a class.
        iou_threshold: A box is dropped where its IoU with a better one is greater than this. 0 / 0 is not greater.
        max_output: How many boxes are kept at most, of all classes together: the best ones.
        top_k: How many of the best boxes of each class are looked at; they alone suppress.
        cross_class: Give every box only its best class (of equal ones the first), and suppress across classes; `top_k`
            then counts boxes of all classes.
        valid: `[*, N]` bool; other boxes neither stay nor suppress.

    Returns:
        `indices [*, K]` int64 into the boxes by falling score, `labels [*, K]` int64, and `valid [*, K]` bool, false
        for padding, whose index and label are 0. K = min(max_output, C * min(top_k, N)), and C = 1 for `cross_class`.
        The scores are `scores.flatten(-2).gather(-1, labels * N + indices)`.

    Raises:
        ValueError: Wrong shape, dtype or device.
    """
    check_boxes(boxes, "boxes", shape="*, N")
    expect(boxes.ndim >= 2, "boxes", "Tensor[*, N, 4]", boxes)
    lead, n = boxes.shape[:-2], boxes.shape[-2]
    expect(scores.ndim == boxes.ndim, "scores", "Tensor[*, C, N]", scores)
    check_shape(scores, "scores", (*lead, scores.shape[-2], n))
    expect(scores.is_floating_point(), "scores", "floating", scores)
    check_device(scores, "scores", boxes, "boxes")
    if valid is not None:
        check_shape(valid, "valid", (*lead, n))
        expect(valid.dtype == torch.bool, "valid", "bool", valid)
        check_device(valid, "valid", boxes, "boxes")
    expect(not math.isnan(iou_threshold), "iou_threshold", "a number", iou_threshold)
    expect(max_output >= 0, "max_output", "not negative", max_output)
    expect(top_k >= 0, "top_k", "not negative", top_k)
    top_k = min(top_k, n)
    if not cross_class:
        slots = min(max_output, scores.shape[-2] * top_k)
        return _fast_nms(boxes, scores, valid, iou_threshold, top_k, slots)
    expect(scores.shape[-2] > 0, "scores", "of at least one class", scores)
    # Not max(dim): which of equal classes it returns is not defined; argmax returns the first.
    best, classes = scores.amax(-2, keepdim=True), scores.argmax(-2)
    indices, _, kept = _fast_nms(boxes, best, valid, iou_threshold, top_k, min(max_output, top_k))
    return indices, torch.where(kept, classes.gather(-1, indices), 0), kept


@operator(
    "fast_nms(Tensor boxes, Tensor scores, Tensor? valid, float iou_threshold, int top_k, int max_output)"
    " -> (Tensor, Tensor, Tensor)",
    reference=reference.fast_nms,
    functions=["fast_nms"],
    fallback="one matrix of IoUs per class, static, no host read",
    by=(0, 1),
    inline=True,
)
def _fast_nms(
    boxes: Tensor, _scores: Tensor, _valid: Tensor | None, _iou_threshold: float, _top_k: int, max_output: int
) -> tuple[Tensor, Tensor, Tensor]:
    shape = (*boxes.shape[:-2], max_output)  # [*, K]
    indices, labels = (boxes.new_empty(shape, dtype=torch.int64) for _ in range(2))
    return indices, labels, boxes.new_empty(shape, dtype=torch.bool)
