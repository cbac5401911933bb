"""Greedy non-maximum suppression in plain PyTorch: static shapes, no host read, the same operators for any data.

Greedy suppression is sequential: whether a box stays may depend on every better one. Both forms here are exact for all
inputs, so both take a fixed number of steps: one per box, or one per kept box. The form with fewer operators is taken.
"""

import math

import torch
from torch import Tensor

from det_ops.boxes import intersection_and_union, upcast

ROWS_AT_ONCE = 128
"""Rows of the suppression matrix computed together: `[B, 128, N]` instead of `[B, N, N]`."""

OPERATORS_PER_ROUND = 18
"""Operators of a round of `_by_rounds`; a step of `_by_scan` has two."""


def float32_floor(threshold: float) -> float:
    """The largest float32 that is not greater than `threshold`.

    A float32 is greater than `threshold` exactly where it is greater than this; PyTorch would round the threshold to
    the nearest float32 for a comparison, torchvision's kernel compares in double precision.
    """
    if not math.isfinite(threshold) or threshold == 0.0:
        return threshold
    mantissa, exponent = math.frexp(threshold)
    return math.ldexp(float(math.floor(mantissa * 2**24)), exponent - 24)


def nms(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor | None,
    valid: Tensor | None,
    iou_threshold: float,
    max_output: int,
    offset: float,
) -> tuple[Tensor, Tensor]:
    """The operator `det_ops::nms`; `max_output` is at most N. Arguments and results are those of `det_ops.nms`."""
    lead, n = boxes.shape[:-2], boxes.shape[-2]
    if max_output == 0 or boxes.numel() == 0:
        shape = (*lead, max_output)
        return boxes.new_zeros(shape, dtype=torch.int64), boxes.new_zeros(shape, dtype=torch.bool)
    dtype = torch.promote_types(torch.promote_types(boxes.dtype, scores.dtype), torch.float32)
    boxes, scores = upcast(boxes).reshape(-1, n, 4).to(dtype), scores.reshape(-1, n).to(dtype)
    threshold = float32_floor(iou_threshold) if dtype == torch.float32 else iou_threshold
    order = scores.sort(dim=1, descending=True, stable=True).indices
    boxes = boxes.gather(1, order.unsqueeze(-1).expand(-1, -1, 4))
    alive = torch.ones_like(order, dtype=torch.bool) if valid is None else valid.reshape(-1, n).gather(1, order)
    groups = None if groups is None else groups.reshape(-1, n).gather(1, order)
    if OPERATORS_PER_ROUND * max_output < 2 * n:
        place, kept = _by_rounds(boxes, groups, alive, threshold, max_output, offset)
    else:
        place, kept = _by_scan(boxes, groups, alive, threshold, max_output, offset)
    indices = torch.where(kept, order.gather(1, place), 0)
    return indices.reshape(*lead, max_output), kept.reshape(*lead, max_output)


def _suppresses(rows: Tensor, boxes: Tensor, threshold: float, offset: float) -> Tensor:
    """Whether boxes `[B, R, 4]` overlap boxes `[B, N, 4]` too much: bool `[B, R, N]`. NaN (0 / 0) is not too much."""
    intersection, union = intersection_and_union(rows, boxes, offset)
    return intersection / union > threshold


def _by_scan(
    boxes: Tensor, groups: Tensor | None, alive: Tensor, threshold: float, max_output: int, offset: float
) -> tuple[Tensor, Tensor]:
    """One step per box, best first: what is still alive at its turn stays and strikes out what it overlaps."""
    n = boxes.shape[1]
    position = torch.arange(n, device=boxes.device)
    for start in range(0, n, ROWS_AT_ONCE):
        rows = slice(start, min(start + ROWS_AT_ONCE, n))
        strikes = _suppresses(boxes[:, rows], boxes, threshold, offset) & (position > position[rows, None])
        if groups is not None:
            strikes = strikes & (groups[:, rows, None] == groups[:, None])
        for row, strike in enumerate(strikes.unbind(1), start):
            alive = alive > (strike & alive[:, row : row + 1])
    # Unique keys, so that the order of top-k is defined; exact in float32 up to 2^24 boxes.
    key, place = torch.where(alive, n - position, 0).float().topk(max_output, dim=1)
    return place, key > 0


def _by_rounds(
    boxes: Tensor, groups: Tensor | None, alive: Tensor, threshold: float, max_output: int, offset: float
) -> tuple[Tensor, Tensor]:
    """One round per kept box: take the first one alive, strike out what it overlaps."""
    n = boxes.shape[1]
    position = torch.arange(n, device=boxes.device)
    places, kept = [], []
    for _ in range(max_output):
        first = torch.where(alive, position, n).amin(1, keepdim=True)  # [B, 1]
        found = first < n
        place = first.clamp(max=n - 1)
        best = boxes.gather(1, place.unsqueeze(-1).expand(-1, -1, 4))
        strike = _suppresses(best, boxes, threshold, offset)[:, 0]
        if groups is not None:
            strike = strike & (groups == groups.gather(1, place))
        # Where none is alive there is nothing left to strike out.
        alive = alive > (strike | (position == place))
        places.append(place)
        kept.append(found)
    return torch.cat(places, 1), torch.cat(kept, 1)
