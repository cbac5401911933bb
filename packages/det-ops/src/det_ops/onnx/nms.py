"""Greedy non-maximum suppression in ONNX: the two forms of `det_ops.reference.nms`, of a fixed number of steps.

`L` images or groups, `N` boxes, `K` slots of the result, `R` boxes of a block. No value decides what runs: there is
no Loop, no NonZero, and no NonMaxSuppression, whose ties and thresholds are each runtime's own.
"""

from typing import Any

import numpy as np

from det_ops.onnx.values import FLOAT, INT64, constant, flattened, op, unflattened
from det_ops.reference.nms import ROWS_AT_ONCE, STEP, float32_floor

NODES_PER_ROUND = 22
"""Nodes of a round of `_by_rounds`."""
NODES_PER_BOX = 1
"""Nodes of `_by_scan`, of which a step of eight boxes takes eight."""


def nms(
    boxes: Any,
    scores: Any,
    groups: Any,
    valid: Any,
    iou_threshold: float,
    max_output: int,
    offset: float,
) -> tuple[Any, Any]:
    """Translate `det_ops::nms` of boxes `[*, N, 4]` and finite scores `[*, N]`, both float32."""
    count = boxes.shape[-2]
    threshold = float32_floor(iou_threshold)
    # The element with the lower index goes first among equals: ONNX defines it so.
    _, order = op.TopK(flattened(scores, 1), [count], axis=1)
    corners = op.Transpose(flattened(boxes, 2), perm=[0, 2, 1])  # [L, 4, N]
    across = op.Tile(op.Unsqueeze(order, [1]), [1, 4, 1])  # [L, 4, N]
    corners = op.GatherElements(corners, across, axis=2)
    if groups is not None:
        groups = op.GatherElements(flattened(groups, 1), order, axis=1)
    if valid is None:
        alive = op.Cast(op.Less(order, count), to=FLOAT)  # all of them
    else:
        alive = op.Cast(op.GatherElements(flattened(valid, 1), order, axis=1), to=FLOAT)
    if NODES_PER_ROUND * max_output < NODES_PER_BOX * count:
        place, kept = _by_rounds(corners, groups, alive, count, threshold, max_output, offset)
    else:
        place, kept = _by_scan(corners, groups, alive, count, threshold, max_output, offset)
    index = op.Where(kept, op.GatherElements(order, place, axis=1), 0)
    shape = [*scores.shape[:-1], max_output]
    return unflattened(index, shape), unflattened(kept, shape)


def areas(low: Any, high: Any, offset: float) -> Any:
    """Areas `[*, 1, *]` of boxes, the corners of each along axis 1."""
    sides = op.Sub(high, low)
    if offset:
        sides = op.Add(sides, offset)
    return _product(sides)


def _product(sides: Any) -> Any:
    width, height = op.Split(sides, axis=1, num_outputs=2)
    return op.Mul(width, height)


def _by_rounds(
    corners: Any, groups: Any, alive: Any, count: int, threshold: float, max_output: int, offset: float
) -> tuple[Any, Any]:
    """One round per kept box: take the first one alive, strike out what it overlaps.

    A box that is alive has the key `N - place`, so that the first one has the largest, and no two have the same.
    """
    falling = constant(np.arange(count, 0, -1, dtype=np.float32))  # [N]
    keys = op.Unsqueeze(op.Mul(alive, falling), [1])  # [L, 1, N]
    low, high = op.Split(corners, axis=1, num_outputs=2)  # [L, 2, N]
    size = areas(low, high, offset)
    groups = None if groups is None else op.Unsqueeze(groups, [1])
    best = []
    for _ in range(max_output):
        first = op.ReduceMax(keys, [2], keepdims=1)  # [L, 1, 1]
        best.append(first)
        place = op.Cast(op.Sub(float(count), op.Max(first, 1.0)), to=INT64)
        one = op.GatherElements(corners, op.Tile(place, [1, 4, 1]), axis=2)  # [L, 4, 1]
        own_low, own_high = op.Split(one, axis=1, num_outputs=2)
        sides = op.Sub(op.Min(high, own_high), op.Max(low, own_low))
        if offset:
            sides = op.Add(sides, offset)
        inside = _product(op.Relu(sides))
        strike = _above(inside, op.Add(areas(own_low, own_high, offset), size), threshold)
        if groups is not None:
            strike = op.And(strike, op.Equal(groups, op.GatherElements(groups, place, axis=2)))
        keys = op.Where(op.Or(strike, op.Equal(keys, first)), 0.0, keys)
    found = op.Squeeze(op.Concat(*best, axis=2), [1])  # [L, K]
    place = op.Cast(op.Sub(float(count), op.Max(found, 1.0)), to=INT64)
    return place, op.Greater(found, 0.0)


def _by_scan(
    corners: Any, groups: Any, alive: Any, count: int, threshold: float, max_output: int, offset: float
) -> tuple[Any, Any]:
    """Block after block of boxes, best first: those of a block that stay strike out what they overlap behind it."""
    later = op.Unsqueeze(alive, [1])  # [L, 1, N]
    low, high = op.Split(corners, axis=1, num_outputs=2)  # [L, 2, N]
    size = areas(low, high, offset)
    settled = []
    for start in range(0, count, ROWS_AT_ONCE):
        end = min(start + ROWS_AT_ONCE, count)
        lows, highs, sizes = (_part(values, 2, 0, end - start) for values in (low, high, size))
        strikes = overlaps(lows, highs, sizes, low, high, size, threshold, offset)  # [L, R, N - start]
        if groups is not None:
            own = op.Unsqueeze(_part(groups, 1, 0, end - start), [2])
            strikes = op.And(strikes, op.Equal(own, op.Unsqueeze(groups, [1])))
        strikes = op.Cast(strikes, to=FLOAT)
        among = op.Mul(_part(strikes, 2, 0, end - start), constant(np.triu(np.ones((end - start,) * 2, np.float32), 1)))
        stay = _settled(_part(later, 2, 0, end - start), among, end - start)  # [L, 1, R]
        settled.append(stay)
        if end == count:
            break
        low, high, size, later, strikes = (
            _part(values, 2, end - start, count) for values in (low, high, size, later, strikes)
        )
        groups = None if groups is None else _part(groups, 1, end - start, count)
        later = op.Relu(op.Sub(later, op.MatMul(stay, strikes)))
    kept = op.Squeeze(op.Concat(*settled, axis=2) if len(settled) > 1 else settled[0], [1])  # [L, N]
    falling = constant(np.arange(count, 0, -1, dtype=np.float32))
    found, place = op.TopK(op.Mul(kept, falling), [max_output], axis=1)
    return place, op.Greater(found, 0.0)


def overlaps(
    low: Any, high: Any, size: Any, all_low: Any, all_high: Any, all_size: Any, threshold: float, offset: float
) -> Any:
    """Whether boxes overlap others too much: bool `[L, R, N]`, of corners `[L, 2, R]` and `[L, 2, N]`."""
    low, high = (op.Unsqueeze(values, [3]) for values in (low, high))
    all_low, all_high = (op.Unsqueeze(values, [2]) for values in (all_low, all_high))
    sides = op.Sub(op.Min(high, all_high), op.Max(low, all_low))  # [L, 2, R, N]
    if offset:
        sides = op.Add(sides, offset)
    inside = op.Squeeze(_product(op.Relu(sides)), [1])
    size = op.Transpose(size, perm=[0, 2, 1])  # [L, R, 1]
    return _above(inside, op.Add(size, all_size), threshold)


def _above(inside: Any, both: Any, threshold: float) -> Any:
    """Whether the shared area of two boxes, over that of their union, is above a threshold.

    0 / 0, of boxes without extent, is not; but some runtimes find NaN greater than a number.
    """
    union = op.Sub(both, inside)
    if threshold >= 0:
        union = op.Max(union, float(np.finfo(np.float32).tiny))
    return op.Greater(op.Div(inside, union), threshold)


def _settled(alive: Any, strikes: Any, rows: int) -> Any:
    """Which boxes `[L, 1, R]` of a block stay, `STEP` at a time, looked up by which of them are alive.

    Products are of 0, 1 and powers of 2 up to 128, and exact in any precision.

    Args:
        alive: `[L, 1, R]`, 0 or 1.
        strikes: `[L, R, R]`, of each box those behind it.
        rows: R.
    """
    filling = -rows % STEP
    if filling:
        alive = op.Pad(alive, [0, 0, 0, 0, 0, filling])
        strikes = op.Pad(strikes, [0, 0, 0, 0, filling, filling])
    steps = (rows + filling) // STEP
    table = _staying(strikes, steps)  # [L, steps, 256, 8]
    powers = constant((2.0 ** np.arange(STEP, dtype=np.float32))[:, None])  # [8, 1]
    settled = []
    for step in range(steps):
        number = op.Cast(op.MatMul(_part(alive, 2, 0, STEP), powers), to=INT64)  # [L, 1, 1]
        own = op.Squeeze(_part(table, 1, step, step + 1), [1])  # [L, 256, 8]
        stay = op.GatherElements(own, op.Tile(number, [1, 1, STEP]), axis=1)  # [L, 1, 8]
        settled.append(stay)
        if step + 1 < steps:
            behind = _part(_part(strikes, 1, step * STEP, (step + 1) * STEP), 2, (step + 1) * STEP, rows + filling)
            alive = op.Relu(op.Sub(_part(alive, 2, STEP, rows + filling), op.MatMul(stay, behind)))
    found = op.Concat(*settled, axis=2) if steps > 1 else settled[0]
    return _part(found, 2, 0, rows) if filling else found


def _staying(strikes: Any, steps: int) -> Any:
    """Which boxes of a step stay, for every pattern of those that are alive: `[L, steps, 256, 8]`."""
    blocks = [
        op.Unsqueeze(_part(_part(strikes, 1, step * STEP, (step + 1) * STEP), 2, step * STEP, (step + 1) * STEP), [1])
        for step in range(steps)
    ]
    own = op.Concat(*blocks, axis=1) if steps > 1 else blocks[0]  # [L, steps, 8, 8]
    patterns = constant((np.arange(2**STEP)[:, None] >> np.arange(STEP) & 1).astype(np.float32))  # [256, 8]
    stay = op.Relu(op.Sub(patterns, op.MatMul(patterns, own)))
    for _ in range(STEP - 2):  # each time one more is right
        stay = op.Relu(op.Sub(patterns, op.MatMul(stay, own)))
    return stay


def _part(values: Any, axis: int, start: int, end: int) -> Any:
    return op.Slice(values, [start], [end], [axis])
