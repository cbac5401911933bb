"""Fast NMS: suppression in one step for all pairs of boxes and all classes.

Greedy NMS lets a box suppress others only if it stays itself, so boxes wait for each other. Fast NMS lets suppressed
boxes suppress too: it removes slightly more and needs no order of steps. Source: YOLACT (Bolya et al., 2019), 4.2.
`N` boxes, `C` classes, `K` slots of the result, `*` any leading dimensions (images, or nothing).
"""

import math

import torch
from torch import Tensor

from det_ops._checks import check_boxes, check_device, check_shape, expect
from det_ops.backends import _C, LIBRARY, float_type, native, register
from det_ops.boxes import intersection_and_union
from det_ops.reference.nms import float32_floor

LIBRARY.define(
    "fast_nms(Tensor boxes, Tensor scores, Tensor? valid, float iou_threshold, int top_k, int max_output)"
    " -> (Tensor, Tensor, Tensor)"
)


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
        boxes: `[*, N, 4]`, floating, `x1, y1, x2, y2`, the same for all classes.
        scores: `[*, C, N]`, floating, without a class for background. Any strides: `[*, N, C]` turned is not copied.
            A score of -inf or NaN takes a box out of a class.
        iou_threshold: A box goes where a better one has an IoU greater than this with it. 0 / 0 is not greater.
        max_output: At most so many are kept of all classes together, the best ones.
        top_k: Only so many of the best boxes of each class are looked at; they alone suppress.
        cross_class: Give every box its best class alone (of equal ones the first), and suppress across classes; `top_k`
            then counts boxes of all classes.
        valid: `[*, N]` bool; other boxes neither stay nor suppress.

    Returns:
        `indices [*, K]` int64 into the boxes by falling score, `labels [*, K]` int64, and `valid [*, K]` bool, where
        padding has index and label 0. K = min(max_output, C * min(top_k, N)), and C = 1 for `cross_class`. The scores
        are `scores.flatten(-2).gather(-1, labels * N + indices)`.

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
        return _dispatch(boxes, scores, valid, iou_threshold, top_k, slots)
    expect(scores.shape[-2] > 0, "scores", "of at least one class", scores)
    # Not max(dim): which of equal classes it returns is not defined; argmax returns the first.
    best, classes = scores.amax(-2, keepdim=True), scores.argmax(-2)
    indices, _, kept = _dispatch(boxes, best, valid, iou_threshold, top_k, min(max_output, top_k))
    return indices, torch.where(kept, classes.gather(-1, indices), 0), kept


def _dispatch(boxes: Tensor, *arguments) -> tuple[Tensor, Tensor, Tensor]:
    """The operator where a kernel serves it; the reference in the open elsewhere, for compilers to fuse."""
    return (torch.ops.det_ops.fast_nms if native(boxes) else _reference)(boxes, *arguments)


def _reference(
    boxes: Tensor, scores: Tensor, valid: Tensor | None, iou_threshold: float, top_k: int, max_output: int
) -> tuple[Tensor, Tensor, Tensor]:
    """A matrix of IoUs per class; `max_output` is at most C * `top_k`, and that at most C * N."""
    lead, (classes, n) = boxes.shape[:-2], scores.shape[-2:]
    if max_output == 0 or boxes.numel() == 0:
        empty = boxes.new_zeros((*lead, max_output), dtype=torch.int64)
        return empty, empty.clone(), empty.bool()
    dtype = torch.promote_types(torch.promote_types(boxes.dtype, scores.dtype), torch.float32)
    threshold = float32_floor(iou_threshold) if dtype == torch.float32 else iou_threshold
    boxes, scores = boxes.reshape(-1, n, 4).to(dtype), scores.reshape(-1, classes, n).to(dtype)
    candidate = scores > -math.inf
    if valid is not None:
        candidate = candidate & valid.reshape(-1, 1, n)
    scores, order = torch.where(candidate, scores, -math.inf).sort(dim=-1, descending=True, stable=True)
    scores, order = scores[..., :top_k], order[..., :top_k]  # [B, C, T]
    best = boxes.gather(1, order.flatten(1).unsqueeze(-1).expand(-1, -1, 4)).reshape(-1, classes, top_k, 4)
    intersection, union = intersection_and_union(best, best, 0.0)
    suppressed = (intersection / union > threshold).triu(1).any(-2)
    scores, place = torch.where(suppressed, -math.inf, scores).flatten(1).sort(dim=-1, descending=True, stable=True)
    place, kept = place[:, :max_output], scores[:, :max_output] > -math.inf
    indices = torch.where(kept, order.flatten(1).gather(1, place), 0)
    labels = torch.where(kept, place // top_k, 0)
    indices, labels, kept = (part.reshape(*lead, max_output) for part in (indices, labels, kept))
    return indices, labels, kept


LIBRARY.impl("fast_nms", _reference, "CompositeExplicitAutograd")


def _cpu(
    boxes: Tensor, scores: Tensor, valid: Tensor | None, iou_threshold: float, top_k: int, max_output: int
) -> tuple[Tensor, Tensor, Tensor]:
    if _C is None:
        return _reference(boxes, scores, valid, iou_threshold, top_k, max_output)
    lead, (classes, n) = boxes.shape[:-2], scores.shape[-2:]
    indices, labels = (torch.empty((*lead, max_output), dtype=torch.int64) for _ in range(2))
    kept = torch.empty((*lead, max_output), dtype=torch.bool)
    dtype = float_type(boxes, scores)
    boxes, scores = boxes.to(dtype).contiguous(), scores.to(dtype).reshape(lead.numel(), classes, n)
    valid = None if valid is None else valid.contiguous()
    image_stride, class_stride, box_stride = scores.stride()
    kernel = _C.fast_nms_float64 if dtype == torch.float64 else _C.fast_nms_float32
    kernel(
        boxes.data_ptr(),
        scores.data_ptr(),
        image_stride,
        class_stride,
        box_stride,
        0 if valid is None else valid.data_ptr(),
        lead.numel(),
        classes,
        n,
        iou_threshold,
        top_k,
        max_output,
        torch.get_num_threads(),
        indices.data_ptr(),
        labels.data_ptr(),
        kept.data_ptr(),
    )
    return indices, labels, kept


LIBRARY.impl("fast_nms", _cpu, "CPU")


@torch.library.register_fake("det_ops::fast_nms")
def _fake(
    boxes: Tensor, _scores: Tensor, _valid: Tensor | None, _iou_threshold: float, _top_k: int, max_output: int
) -> tuple[Tensor, Tensor, Tensor]:
    shape = (*boxes.shape[:-2], max_output)
    indices, labels = (boxes.new_empty(shape, dtype=torch.int64) for _ in range(2))
    return indices, labels, boxes.new_empty(shape, dtype=torch.bool)


register("fast_nms", "cpu", "C++", "all classes by falling score, sorted only as far as needed; threads over images")
for _device in ("cuda", "npu"):
    register("fast_nms", _device, "reference", "one matrix of IoUs per class, static, no host read")
