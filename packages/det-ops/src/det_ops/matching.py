"""Assignment of anchors or proposals to ground truth by IoU.

`B` images, `N` anchors, `M` slots for truth of which `valid` says which are used.
"""

import torch
from torch import Tensor

from det_ops._checks import check_boxes, check_device, check_shape, expect
from det_ops._operator import operator
from det_ops.reference import matching as reference


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
    """Find the best truth for every anchor, and label the anchor by its IoU with it.

    The result is that of `Matcher` in detectron2, torchvision and maskrcnn-benchmark on the valid truths alone: among
    equal IoUs the first truth wins, and a low-quality match keeps the anchor's own best truth. As there, a truth that
    meets no anchor makes all anchors positive where low-quality matches are allowed: its maximum is 0, which they all
    share. `low_quality_iou` and `reassign_low_quality` make it that of `MaxIoUAssigner` in mmdetection.

    Args:
        anchors: `[N, 4]`, the same for all images, or `[B, N, 4]`; floating, `x1, y1, x2, y2` in pixels.
        truth: `[B, M, 4]`, floating, in the same coordinates.
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
    rules = (high, low, allow_low_quality, low_quality_iou, reassign_low_quality)
    return _match(anchors, truth, valid, *rules, offset)


@operator(
    "match(Tensor anchors, Tensor truth, Tensor valid, float high, float low, bool allow_low_quality, "
    "float low_quality_iou, bool reassign_low_quality, float offset) -> (Tensor, Tensor)",
    reference=reference.match,
    functions=["match"],
    fallback="running maximum over 16 rows of the IoU matrix at a time",
    by=(0, 1),
    inline=True,
)
def _match(
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
    shape = (truth.shape[0], anchors.shape[-2])  # [B, N]
    return truth.new_empty(shape, dtype=torch.int64), truth.new_empty(shape, dtype=torch.int8)
