"""Greedy non-maximum suppression in plain PyTorch: static shapes, no host read, the same operators for any data.

Greedy suppression is sequential: whether a box stays may depend on every better one. Both forms here are exact for all
inputs, so both take a fixed number of steps: one per eight boxes, or one per kept box. The form with fewer operators is
taken: on an accelerator each is a launch.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from det_ops.boxes import intersection_and_union, upcast

STEP = 8
"""Boxes that a step of `_by_scan` settles."""

ROWS_AT_ONCE = 128
"""Rows of the suppression matrix computed together: `[B, 128, N]` instead of `[B, N, N]`."""

OPERATORS_PER_ROUND = 18
"""Operators of a round of `_by_rounds`."""

OPERATORS_PER_ROWS = 120
"""Operators of `_by_scan` for `ROWS_AT_ONCE` boxes."""


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
    boxes = boxes.gather(1, order.unsqueeze(-1).expand(-1, -1, 4))  # [B, N, 4]
    alive = torch.ones_like(order, dtype=torch.bool) if valid is None else valid.reshape(-1, n).gather(1, order)
    groups = None if groups is None else groups.reshape(-1, n).gather(1, order)
    if OPERATORS_PER_ROUND * max_output < OPERATORS_PER_ROWS * math.ceil(n / ROWS_AT_ONCE):
        place, kept = _by_rounds(boxes, groups, alive, threshold, max_output, offset)
    else:
        place, kept = _by_scan(boxes, groups, alive, threshold, max_output, offset)
    indices = torch.where(kept, order.gather(1, place), 0)  # [B, K]
    return indices.reshape(*lead, max_output), kept.reshape(*lead, max_output)


def nms_of_groups(
    boxes: Tensor,
    scores: Tensor,
    sizes: Sequence[int],
    valid: Tensor | None,
    iou_threshold: float,
    max_output: int,
    offset: float,
    *,
    nms: Callable[..., tuple[Tensor, Tensor]] = nms,
) -> tuple[Tensor, Tensor]:
    """`nms` of groups that lie one behind the other, all of them at once: as many steps as the largest one has.

    Args:
        boxes: `[*, N, 4]`.
        scores: `[*, N]`.
        sizes: of the groups, N together.
        valid: `[*, N]`.
        iou_threshold: As for `nms`.
        max_output: At most N.
        offset: As for `nms`.
        nms: The operator, or what computes it.

    Returns:
        As `nms`, by falling score over all groups.
    """
    position = torch.arange(boxes.shape[-2], device=boxes.device)
    valid = torch.ones_like(scores, dtype=torch.bool) if valid is None else valid
    of_group = [_stacked(part, sizes, dim) for part, dim in ((boxes, -2), (scores, -1), (valid, -1))]
    place, kept = nms(of_group[0], of_group[1], None, of_group[2], iou_threshold, min(max_output, max(sizes)), offset)
    index = _stacked(position, sizes, -1).expand_as(of_group[1]).gather(-1, place).flatten(-2)
    return best_of(index, kept.flatten(-2), scores, max_output)


def best_of(indices: Tensor, kept: Tensor, scores: Tensor, max_output: int) -> tuple[Tensor, Tensor]:
    """The best of the kept boxes of all groups.

    Args:
        indices: `[*, S]` int64, slots of all groups.
        kept: `[*, S]` bool, which of them are in use.
        scores: `[*, N]`, of all boxes.
        max_output: At most S.

    Returns:
        As `nms`.
    """
    order = scores.sort(dim=-1, descending=True, stable=True).indices
    position = torch.arange(order.shape[-1], device=order.device)
    # [*, N]: the place of each box in that order.
    rank = torch.empty_like(order).scatter_(-1, order, position.expand_as(order))
    place, kept = _best_first(kept, rank.gather(-1, indices), order.shape[-1], max_output)
    return torch.where(kept, indices.gather(-1, place), 0), kept


def _stacked(values: Tensor, sizes: Sequence[int], dim: int) -> Tensor:
    """Groups `[*, N, *]` along `dim` side by side: `[*, G, P, *]` with P the largest, filled up with zeros."""
    most, behind = max(sizes), [0] * (2 * (-dim - 1))
    parts = [F.pad(part, (*behind, 0, most - part.shape[dim])) for part in values.split(list(sizes), dim)]
    return torch.stack(parts, dim - 1)


def _best_first(kept: Tensor, rank: Tensor, n: int, max_output: int) -> tuple[Tensor, Tensor]:
    """The places of the kept ones by rising rank (below n), and which of these `max_output` slots are in use."""
    # Unique keys, so that the order of top-k is defined; exact in float32 up to 2^24 boxes.
    key, place = torch.where(kept, n - rank, 0).float().topk(max_output, dim=-1)
    return place, key > 0


def _suppresses(rows: Tensor, boxes: Tensor, threshold: float, offset: float) -> Tensor:
    """Whether boxes `[B, R, 4]` overlap boxes `[B, N, 4]` too much: bool `[B, R, N]`. NaN (0 / 0) is not too much."""
    intersection, union = intersection_and_union(rows, boxes, offset)
    return intersection / union > threshold


def _by_scan(
    boxes: Tensor, groups: Tensor | None, alive: Tensor, threshold: float, max_output: int, offset: float
) -> tuple[Tensor, Tensor]:
    """Box after box, best first: what is still alive at its turn stays and strikes out what it overlaps.

    `STEP` boxes at a time: which of them stay is looked up by which of them are alive. The products of matrices are of
    0, 1 and powers of 2 up to 128, and exact in any precision that a device may compute them in.
    """
    n = boxes.shape[1]
    filling = -n % STEP
    boxes, alive = F.pad(boxes, (0, 0, 0, filling)), F.pad(alive, (0, filling))
    groups = None if groups is None else F.pad(groups, (0, filling))
    position = torch.arange(n + filling, device=boxes.device)
    # Not by shifts, which torch_npu does not broadcast.
    weights = torch.cat([torch.full((1,), 2**bit, device=boxes.device) for bit in range(STEP)])
    patterns = (torch.arange(2**STEP, device=boxes.device)[:, None] // weights % 2).float()  # [256, 8]
    weights = weights.float()
    later = alive.float()
    settled = []
    for start in range(0, n + filling, ROWS_AT_ONCE):
        rows = slice(start, min(start + ROWS_AT_ONCE, n + filling))
        strikes = _suppresses(boxes[:, rows], boxes[:, start:], threshold, offset)  # [B, R, N - start]
        strikes = strikes & (position[start:] > position[rows, None])
        if groups is not None:
            strikes = strikes & (groups[:, rows, None] == groups[:, None, start:])
        strikes = strikes.float()
        steps = (rows.stop - start) // STEP
        with torch.autocast(boxes.device.type, enabled=False):  # which would copy the factors of each product
            table = _staying(strikes[:, :, : rows.stop - start].unflatten(2, (steps, STEP)), patterns)
            for step, of_step in enumerate(strikes.split(STEP, 1)):
                number = (later[:, STEP * step : STEP * (step + 1)] @ weights).long()  # [B]
                stay = table[:, step].gather(1, number[:, None, None].expand(-1, 1, STEP))  # [B, 1, 8]
                later = torch.baddbmm(later[:, None], stay, of_step, alpha=-1).clamp_(min=0)[:, 0]
        settled.append(later[:, : rows.stop - start])
        later = later[:, rows.stop - start :]
    kept = torch.cat(settled, 1)[:, :n] > 0
    return _best_first(kept, position[:n], n, max_output)


def _staying(strikes: Tensor, patterns: Tensor) -> Tensor:
    """Which boxes of a step stay, for every pattern of those that are alive.

    Args:
        strikes: `[B, R, R / 8, 8]`, of the boxes of R / 8 steps among each other.
        patterns: `[256, 8]`.

    Returns:
        `[B, R / 8, 256, 8]`.
    """
    batch, _, steps, size = strikes.shape
    own = strikes.unflatten(1, (steps, size)).diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2).flatten(0, 1)
    stay = patterns.expand(len(own), -1, -1)
    for _ in range(size - 1):  # each time one more is right
        stay = torch.baddbmm(patterns, stay, own, alpha=-1).clamp_(min=0)
    return stay.unflatten(0, (batch, steps))


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
        strike = _suppresses(best, boxes, threshold, offset)[:, 0]  # [B, N]
        if groups is not None:
            strike = strike & (groups == groups.gather(1, place))
        # Where none is alive there is nothing left to strike out.
        alive = alive > (strike | (position == place))
        places.append(place)
        kept.append(found)
    return torch.cat(places, 1), torch.cat(kept, 1)
