"""Assignment of anchors or proposals to ground truth by IoU.

`B` images, `N` anchors, `M` slots for truth of which `valid` says which are used.
"""

import torch
from torch import Tensor

from det_ops._checks import check_boxes, check_device, check_shape, expect
from det_ops.backends import _C, LIBRARY, float_type, native, register, triton
from det_ops.boxes import iou, upcast

LIBRARY.define(
    "match(Tensor anchors, Tensor truth, Tensor valid, float high, float low, bool allow_low_quality, "
    "float low_quality_iou, bool reassign_low_quality, float offset) -> (Tensor, Tensor)"
)


def match(
    anchors: Tensor,
    truth: Tensor,
    valid: Tensor,
    *,
    high: float,
    low: float,
    allow_low_quality: bool = False,
    low_quality_iou: float = 0.0,
    reassign_low_quality: bool = False,
    offset: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Find the best truth for every anchor and label the anchor by its IoU with it.

    As `Matcher` of detectron2, torchvision and maskrcnn-benchmark on the valid truths alone: among equal IoUs the first
    truth wins; a low-quality match keeps the anchor's own best truth. A truth that meets no anchor has the maximum 0,
    shared by all anchors, and so makes all of them positive where low-quality matches are allowed: theirs do that too.
    With `low_quality_iou` and `reassign_low_quality` as `MaxIoUAssigner` of mmdetection.

    Args:
        anchors: `[N, 4]`, the same for all images, or `[B, N, 4]`.
        truth: `[B, M, 4]`.
        valid: `[B, M]` bool; other truths never match.
        high: IoU from which an anchor is positive.
        low: IoU below which an anchor is negative.
        allow_low_quality: Make every anchor positive that has the largest IoU of some truth.
        low_quality_iou: Only if that IoU is at least this (mmdetection's `min_pos_iou`).
        reassign_low_quality: Give such an anchor that truth, the last one of several, instead of its own best truth.
        offset: 1.0 for the legacy inclusive box convention.

    Returns:
        `index [B, N]` int64, the slot of the truth with the largest IoU (the first valid one where all are 0, and 0
        where no truth is valid) or the reassigned one, and `label [B, N]` int8: 1 positive, 0 negative, -1 neither.

    Raises:
        ValueError: Wrong shape, dtype, device or thresholds.
    """
    check_boxes(truth, "truth", 3, "B, M")
    check_boxes(anchors, "anchors", shape="[B,] N")
    if anchors.ndim != 2 and (anchors.ndim != 3 or anchors.shape[0] != truth.shape[0]):
        expect(False, "anchors", f"Tensor[N, 4] or Tensor[{truth.shape[0]}, N, 4]", anchors)
    check_shape(valid, "valid", truth.shape[:2])
    expect(valid.dtype == torch.bool, "valid", "bool", valid)
    check_device(truth, "truth", anchors, "anchors")
    check_device(valid, "valid", anchors, "anchors")
    expect(low <= high, "low", f"at most high ({high})", low)
    operator = torch.ops.det_ops.match if native(anchors) or triton(anchors, truth) else _reference
    rules = (high, low, allow_low_quality, low_quality_iou, reassign_low_quality)
    return operator(anchors, truth, valid, *rules, offset)


TRUTHS_AT_ONCE = 16
"""How many rows of the IoU matrix the reference holds: `[B, 16, N]` instead of `[B, M, N]`."""


def _reference(
    anchors: Tensor,
    truth: Tensor,
    valid: Tensor,
    high: float,
    low: float,
    allow_low_quality: bool,
    low_quality_iou: float,
    reassign_low_quality: bool,
    offset: float,
) -> tuple[Tensor, Tensor]:
    """A running maximum over slices of the IoU matrix."""
    anchors, truth = upcast(anchors), upcast(truth)
    n, (b, m) = anchors.shape[-2], truth.shape[:2]
    best = truth.new_full((b, n), -1.0)
    index = torch.zeros((b, n), dtype=torch.int64, device=truth.device)
    forced = torch.full_like(index, -1)  # the last truth whose best anchor it is
    for start in range(0, m if n else 0, TRUTHS_AT_ONCE):
        some = slice(start, start + TRUTHS_AT_ONCE)
        quality = torch.where(valid[:, some, None], iou(truth[:, some], anchors, offset), -1)  # [B, T, N]
        # Not max(dim): which of equal values it returns is not defined; argmax returns the first.
        largest, first = quality.amax(1), quality.argmax(1)
        better = largest > best
        best = torch.where(better, largest, best)
        index = torch.where(better, first + start, index)
        if allow_low_quality:
            top = quality.amax(2, keepdim=True)
            enough = valid[:, some, None] & (top >= low_quality_iou)
            slots = torch.arange(start, start + quality.shape[1], device=truth.device)[:, None]
            forced = forced.maximum(torch.where((quality == top) & enough, slots, -1).amax(1))
    if reassign_low_quality:
        index = torch.where(forced >= 0, forced, index)
    positive = (best >= high) | (forced >= 0)
    label = torch.where(positive, 1, torch.where(best < low, 0, -1))
    return index, torch.where(valid.any(1, keepdim=True), label, 0).to(torch.int8)


def _portable(
    anchors: Tensor,
    truth: Tensor,
    valid: Tensor,
    high: float,
    low: float,
    allow_low_quality: bool,
    low_quality_iou: float,
    reassign_low_quality: bool,
    offset: float,
) -> tuple[Tensor, Tensor]:
    """Triton's kernels where they serve, else the reference."""
    if triton(anchors, truth):
        from det_ops.backends.triton import matching as _triton_matching

        return _triton_matching.match(
            anchors, truth, valid, high, low, allow_low_quality, low_quality_iou, reassign_low_quality, offset
        )
    return _reference(
        anchors, truth, valid, high, low, allow_low_quality, low_quality_iou, reassign_low_quality, offset
    )


LIBRARY.impl("match", _portable, "CompositeExplicitAutograd")


def _cpu(
    anchors: Tensor,
    truth: Tensor,
    valid: Tensor,
    high: float,
    low: float,
    allow_low_quality: bool,
    low_quality_iou: float,
    reassign_low_quality: bool,
    offset: float,
) -> tuple[Tensor, Tensor]:
    if _C is None or triton(anchors, truth):
        return _portable(
            anchors, truth, valid, high, low, allow_low_quality, low_quality_iou, reassign_low_quality, offset
        )
    dtype = float_type(anchors, truth)
    anchors, truth, valid = anchors.to(dtype).contiguous(), truth.to(dtype).contiguous(), valid.contiguous()
    n, (b, m) = anchors.shape[-2], truth.shape[:2]
    index = torch.empty((b, n), dtype=torch.int64)
    label = torch.empty((b, n), dtype=torch.int8)
    kernel = _C.match_float64 if dtype == torch.float64 else _C.match_float32
    kernel(
        anchors.data_ptr(),
        anchors.ndim == 2,
        n,
        truth.data_ptr(),
        valid.data_ptr(),
        b,
        m,
        high,
        low,
        allow_low_quality,
        low_quality_iou,
        reassign_low_quality,
        offset,
        torch.get_num_threads(),
        index.data_ptr(),
        label.data_ptr(),
    )
    return index, label


LIBRARY.impl("match", _cpu, "CPU")


@torch.library.register_fake("det_ops::match")
def _fake(
    anchors: Tensor,
    truth: Tensor,
    _valid: Tensor,
    _high: float,
    _low: float,
    _allow_low_quality: bool,
    _low_quality_iou: float,
    _reassign_low_quality: bool,
    _offset: float,
) -> tuple[Tensor, Tensor]:
    shape = (truth.shape[0], anchors.shape[-2])
    return truth.new_empty(shape, dtype=torch.int64), truth.new_empty(shape, dtype=torch.int8)


register("match", "cpu", "C++", "blocks of anchors in cache, no matrix of IoUs; threads over blocks")
register("match", "cuda", "Triton", "blocks of anchors loop over truths, no matrix of IoUs; float64: reference")
register("match", "npu", "reference", "running maximum over 16 rows of the IoU matrix at a time")
