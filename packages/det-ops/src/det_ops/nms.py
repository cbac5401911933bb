"""Greedy non-maximum suppression of fixed output length, over a batch.

`N` boxes, `K` slots of the result, `*` any leading dimensions (images, or nothing).
"""

import math
from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor

from det_ops._checks import check_boxes, check_device, check_shape, expect
from det_ops._operator import operator
from det_ops.backends.npu import nms as npu
from det_ops.reference import nms as reference


@overload
def nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    *,
    max_output: int,
    valid: Tensor | None = None,
    offset: float = 0.0,
) -> tuple[Tensor, Tensor]: ...
@overload
def nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    *,
    max_output: None = None,
    valid: Tensor | None = None,
    offset: float = 0.0,
) -> Tensor | tuple[Tensor, Tensor]: ...
def nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    *,
    max_output: int | None = None,
    valid: Tensor | None = None,
    offset: float = 0.0,
) -> Tensor | tuple[Tensor, Tensor]:
    """Keep the best boxes, none of which overlaps a better kept one by more than a threshold.

    Args:
        boxes: `[*, N, 4]`, floating, `x1, y1, x2, y2` in pixels.
        scores: `[*, N]`, floating. Equal scores: the lower index goes first. NaN counts as the largest score.
        iou_threshold: A box is dropped where its IoU with a better kept box is greater than this.
        max_output: How many boxes are kept at most; no more are looked for.
        valid: `[*, N]` bool; other boxes neither stay nor suppress.
        offset: 1.0 for the legacy inclusive box convention.

    Returns:
        `indices [*, K]` int64 by falling score, padded with 0, and `valid [*, K]` bool, with K = min(max_output, N),
        or N without `max_output`. A single set of boxes `[N, 4]` without `max_output` gives the kept indices alone
        instead, as `torchvision.ops.nms` does; their number depends on the data, so that this works eagerly only.

    Raises:
        ValueError: Wrong shape, dtype or device.
    """
    return _checked(boxes, scores, None, iou_threshold, max_output, valid, offset)


@overload
def batched_nms(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor | Sequence[int],
    iou_threshold: float,
    *,
    max_output: int,
    valid: Tensor | None = None,
    offset: float = 0.0,
) -> tuple[Tensor, Tensor]: ...
@overload
def batched_nms(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor | Sequence[int],
    iou_threshold: float,
    *,
    max_output: None = None,
    valid: Tensor | None = None,
    offset: float = 0.0,
) -> Tensor | tuple[Tensor, Tensor]: ...
def batched_nms(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor | Sequence[int],
    iou_threshold: float,
    *,
    max_output: int | None = None,
    valid: Tensor | None = None,
    offset: float = 0.0,
) -> Tensor | tuple[Tensor, Tensor]:
    """`nms` in which boxes of different groups (classes, feature levels) do not suppress each other.

    Groups are compared, boxes are not moved apart: the result does not depend on the range of the coordinates, as it
    does with the usual trick of adding a multiple of the largest one.

    Args:
        boxes: `[*, N, 4]`, floating, `x1, y1, x2, y2` in pixels.
        scores: `[*, N]`, floating, as for `nms`.
        groups: `[*, N]` int64, any values; or the lengths of groups that lie one behind the other, such as levels,
            which add up to N: the reference then goes through all groups at once.
        iou_threshold: As for `nms`.
        max_output: How many boxes are kept at most, of all groups together: the best ones.
        valid: `[*, N]` bool; other boxes neither stay nor suppress.
        offset: 1.0 for the legacy inclusive box convention.

    Returns:
        `indices [*, K]` and `valid [*, K]`, or the kept indices alone, as `nms`: all groups together by falling score.

    Raises:
        ValueError: Wrong shape, dtype or device.
    """
    return _checked(boxes, scores, groups, iou_threshold, max_output, valid, offset)


def _checked(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor | Sequence[int] | None,
    iou_threshold: float,
    max_output: int | None,
    valid: Tensor | None,
    offset: float,
) -> Tensor | tuple[Tensor, Tensor]:
    check_boxes(boxes, "boxes", shape="*, N")
    expect(boxes.ndim >= 2, "boxes", "Tensor[*, N, 4]", boxes)
    check_shape(scores, "scores", boxes.shape[:-1])
    expect(scores.is_floating_point(), "scores", "floating", scores)
    check_device(scores, "scores", boxes, "boxes")
    n = boxes.shape[-2]
    if isinstance(groups, Tensor):
        check_shape(groups, "groups", scores.shape)
        expect(groups.dtype == torch.int64, "groups", "int64", groups)
        check_device(groups, "groups", boxes, "boxes")
    elif groups is not None:
        fits = all(size >= 0 for size in groups) and sum(groups) == n
        expect(fits, "groups", f"a tensor, or lengths that add up to {n}", groups)
    if valid is not None:
        check_shape(valid, "valid", scores.shape)
        expect(valid.dtype == torch.bool, "valid", "bool", valid)
        check_device(valid, "valid", boxes, "boxes")
    expect(not math.isnan(iou_threshold), "iou_threshold", "a number", iou_threshold)
    slots = n if max_output is None else min(max_output, n)
    expect(slots >= 0, "max_output", "None or not negative", max_output)
    result = _chosen(boxes, scores, groups, valid, iou_threshold, slots, offset)
    if max_output is None and boxes.ndim == 2:
        indices, kept = result
        return indices[kept]
    return result


def _chosen(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor | Sequence[int] | None,
    valid: Tensor | None,
    iou_threshold: float,
    max_output: int,
    offset: float,
) -> tuple[Tensor, Tensor]:
    """By the kernel that serves the device, or the form that was asked for on an NPU."""
    settings = (iou_threshold, max_output, offset)
    form = npu.form(boxes)
    if form == "host":
        there = groups.cpu() if isinstance(groups, Tensor) else groups
        found = _chosen(boxes.cpu(), scores.cpu(), there, None if valid is None else valid.cpu(), *settings)
        return found[0].to(boxes.device), found[1].to(boxes.device)
    if form == "vendor" and not isinstance(groups, Tensor) and offset == 0:
        return npu.by_vendor(boxes, scores, groups, valid, iou_threshold, max_output)
    if groups is None or isinstance(groups, Tensor):
        return _nms(boxes, scores, groups, valid, *settings)
    if _nms.backend((boxes, scores)) is None or torch.compiler.is_exporting():
        return reference.nms_of_groups(boxes, scores, groups, valid, *settings, nms=_nms)
    numbers = [torch.full((size,), number, device=boxes.device) for number, size in enumerate(groups)]
    return _nms(boxes, scores, torch.cat(numbers).expand_as(scores), valid, *settings)


@operator(
    "nms(Tensor boxes, Tensor scores, Tensor? groups, Tensor? valid, float iou_threshold, int max_output, float offset)"
    " -> (Tensor, Tensor)",
    reference=reference.nms,
    functions=["batched_nms", "nms"],
    fallback="exact; static, no wait; an operator per box of the largest level, or 18 per kept box if that is fewer",
    by=(0, 1),
    inline=True,
)
def _nms(
    boxes: Tensor,
    _scores: Tensor,
    _groups: Tensor | None,
    _valid: Tensor | None,
    _iou_threshold: float,
    max_output: int,
    _offset: float,
) -> tuple[Tensor, Tensor]:
    shape = (*boxes.shape[:-2], max_output)  # [*, K]
    return boxes.new_empty(shape, dtype=torch.int64), boxes.new_empty(shape, dtype=torch.bool)
