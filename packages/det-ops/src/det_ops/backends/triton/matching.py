"""Matching on GPUs: a program holds a block of anchors and loops over the truths of an image.

The best truth of each anchor stays in registers, the best IoU of each truth is an atomic maximum; low-quality matches
are found by a second pass that computes the same IoUs again. There is no matrix of IoUs.
"""

# Compile-time arguments are in capitals, as in all of Triton's documentation.
# ruff: noqa: N803

import torch
import triton
import triton.language as tl
from torch import Tensor

from det_ops.backends.triton.common import launch, overlap

_BLOCK = 512


@triton.jit
def _corners(boxes, place, inside):
    """`x1, y1, x2, y2` of boxes; zeros for those that are not `inside` the array."""
    box = boxes + place.to(tl.int64) * 4
    x1, y1 = tl.load(box, mask=inside, other=0.0), tl.load(box + 1, mask=inside, other=0.0)
    x2, y2 = tl.load(box + 2, mask=inside, other=0.0), tl.load(box + 3, mask=inside, other=0.0)
    return x1.to(tl.float32), y1.to(tl.float32), x2.to(tl.float32), y2.to(tl.float32)


@triton.jit
def _iou(x1, y1, x2, y2, truth, offset):
    """IoU of anchors with one truth (as `boxes.iou`)."""
    a, b, c, d = tl.load(truth), tl.load(truth + 1), tl.load(truth + 2), tl.load(truth + 3)
    shared, union = overlap(
        x1, y1, x2, y2, a.to(tl.float32), b.to(tl.float32), c.to(tl.float32), d.to(tl.float32), offset
    )
    return tl.div_rn(shared, tl.where(shared > 0.0, union, 1.0))


@triton.jit
def _best_kernel(
    anchors,
    truth,
    valid,
    largest,
    index,
    label,
    n,
    m,
    high,
    low,
    offset,
    SHARED: tl.constexpr,
    LOW_QUALITY: tl.constexpr,
    BLOCK: tl.constexpr,
):
    image = tl.program_id(1).to(tl.int64)
    anchor = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    if not SHARED:
        anchors += image * n * 4
    x1, y1, x2, y2 = _corners(anchors, anchor, anchor < n)
    best = tl.full((BLOCK,), -1.0, tl.float32)
    slot = tl.zeros((BLOCK,), tl.int32)
    for k in range(m):
        one = image * m + k
        if tl.load(valid + one) != 0:
            quality = _iou(x1, y1, x2, y2, truth + one * 4, offset)
            better = quality > best
            slot = tl.where(better, k, slot)
            best = tl.where(better, quality, best)
            if LOW_QUALITY:
                here = tl.max(tl.where(anchor < n, quality, 0.0), 0)
                tl.atomic_max(largest + one, here, mask=here > 0.0, sem="relaxed")  # pyrefly: ignore
    judged = tl.where(best >= high, 1, tl.where(best < low, 0, -1))
    out = image * n + anchor
    tl.store(index + out, slot.to(tl.int64), mask=anchor < n)
    tl.store(label + out, tl.where(best < 0.0, 0, judged).to(tl.int8), mask=anchor < n)


@triton.jit
def _low_quality_kernel(
    anchors,
    truth,
    valid,
    largest,
    index,
    label,
    n,
    m,
    least,
    offset,
    SHARED: tl.constexpr,
    REASSIGN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    image = tl.program_id(1).to(tl.int64)
    anchor = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    if not SHARED:
        anchors += image * n * 4
    x1, y1, x2, y2 = _corners(anchors, anchor, anchor < n)
    slot = tl.full((BLOCK,), -1, tl.int32)
    for k in range(m):
        one = image * m + k
        if tl.load(valid + one) != 0:
            quality = _iou(x1, y1, x2, y2, truth + one * 4, offset)
            top = tl.load(largest + one)
            wanted = tl.where(top >= least, top, -1.0)  # -1 is no IoU
            slot = tl.where(quality == wanted, k, slot)
    out = image * n + anchor
    forced = (anchor < n) & (slot >= 0)
    tl.store(label + out, tl.full((BLOCK,), 1, tl.int8), mask=forced)
    if REASSIGN:
        tl.store(index + out, slot.to(tl.int64), mask=forced)


def match(
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
    """The operator `det_ops::match` (not for float64)."""
    n, (b, m) = anchors.shape[-2], truth.shape[:2]
    index = torch.empty((b, n), dtype=torch.int64, device=truth.device)
    label = torch.empty((b, n), dtype=torch.int8, device=truth.device)
    if index.numel() == 0:
        return index, label
    if m == 0:
        return index.zero_(), label.zero_()
    anchors, truth = anchors.contiguous(), truth.contiguous()
    valid = valid.contiguous()
    largest = torch.zeros((b, m), dtype=torch.float32, device=truth.device)
    grid = (triton.cdiv(n, _BLOCK), b)
    shared = anchors.ndim == 2
    launch(
        _best_kernel,
        grid,
        anchors,
        truth,
        valid,
        largest,
        index,
        label,
        n,
        m,
        float(high),
        float(low),
        float(offset),
        SHARED=shared,
        LOW_QUALITY=allow_low_quality,
        BLOCK=_BLOCK,
    )
    if allow_low_quality:
        launch(
            _low_quality_kernel,
            grid,
            anchors,
            truth,
            valid,
            largest,
            index,
            label,
            n,
            m,
            float(low_quality_iou),
            float(offset),
            SHARED=shared,
            REASSIGN=reassign_low_quality,
            BLOCK=_BLOCK,
        )
    return index, label
