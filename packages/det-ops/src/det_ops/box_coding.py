"""Boxes as offsets from anchors: the parametrisation of R-CNN (Girshick et al. 2014, appendix C).

`dx, dy` move the centre in units of the anchor's sides, `dw, dh` are logarithms of the ratio of sides; each is
multiplied by its weight. Weights (10, 10, 5, 5) are mmdetection's standard deviations 0.1, 0.1, 0.2, 0.2.
Plain PyTorch on any device, differentiable; shapes broadcast, so class-specific deltas `[..., C, 4]` go with anchors
`[..., 1, 4]`. `offset` is 1 in the legacy inclusive convention: widths are `x2 - x1 + 1`, decoded `x2` is one less.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from det_ops._checks import check_boxes, check_device, expect
from det_ops._operator import elementwise
from det_ops.boxes import upcast

MAX_LOG_SCALE = math.log(1000.0 / 16)
"""Largest `dw`, `dh` decoded: a 16 pixel anchor becomes a 1000 pixel box. Detectron's bound against overflow."""

elementwise("decode_boxes", "encode_boxes")


def _check(first: Tensor, name: str, anchors: Tensor, weights: Sequence[float]) -> None:
    check_boxes(first, name)
    check_boxes(anchors, "anchors")
    check_device(anchors, "anchors", first, name)
    expect(len(weights) == 4 and all(weight > 0 for weight in weights), "weights", "four positive numbers", weights)


def _pairs(weights: Sequence[float]) -> tuple[tuple[float, float], tuple[float, float]]:
    return (weights[0], weights[1]), (weights[2], weights[3])


def _scaled(values: Tensor, factors: tuple[float, float], *, divide: bool) -> Tensor:
    """`values [..., 2]` times (or over) two numbers, without a tensor made from host numbers inside the step."""
    if factors[0] == factors[1]:
        return values / factors[0] if divide else values * factors[0]
    parts = values.unbind(-1)
    return torch.stack([p / f if divide else p * f for p, f in zip(parts, factors, strict=True)], -1)


def _centres_and_sides(boxes: Tensor, offset: float) -> tuple[Tensor, Tensor]:
    sides = boxes[..., 2:] - boxes[..., :2]
    if offset:
        sides = sides + offset
    return boxes[..., :2] + 0.5 * sides, sides


def encode_boxes(
    boxes: Tensor, anchors: Tensor, weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0), *, offset: float = 0.0
) -> Tensor:
    """Deltas that turn `anchors` into `boxes`, the reverse of :func:`decode_boxes`.

    Args:
        boxes: `[..., 4]`, floating, `x1, y1, x2, y2` in pixels.
        anchors: `[..., 4]`, floating, the boxes that the deltas are relative to; broadcast against `boxes`.
        weights: Factors of dx, dy, dw, dh.
        offset: 1.0 for the legacy inclusive convention.

    Returns:
        `[..., 4]` dx, dy, dw, dh, float32 or float64. Finite for every finite box: sides shorter than the machine
        epsilon, as padding has, count as that long, so that a masked row never becomes 0 * inf.

    Raises:
        ValueError: Wrong shape, dtype, device or weights.
    """
    _check(boxes, "boxes", anchors, weights)
    boxes, anchors = upcast(boxes), upcast(anchors)
    centre, sides = _centres_and_sides(boxes, offset)
    anchor_centre, anchor_sides = _centres_and_sides(anchors, offset)
    smallest = torch.finfo(anchor_sides.dtype).eps
    sides, anchor_sides = sides.clamp(min=smallest), anchor_sides.clamp(min=smallest)
    of_centre, of_sides = _pairs(weights)
    move = _scaled(centre - anchor_centre, of_centre, divide=False) / anchor_sides
    grow = _scaled(torch.log(sides / anchor_sides), of_sides, divide=False)
    return torch.cat((move, grow), -1)


def decode_boxes(
    deltas: Tensor,
    anchors: Tensor,
    weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    *,
    offset: float = 0.0,
    max_log_scale: float = MAX_LOG_SCALE,
    clamp_below: bool = False,
) -> Tensor:
    """Boxes that `deltas` make of `anchors`.

    Args:
        deltas: `[..., 4]`, floating, dx, dy, dw, dh.
        anchors: `[..., 4]`, floating, `x1, y1, x2, y2` in pixels; broadcast against `deltas`.
        weights: What dx, dy, dw, dh were multiplied by.
        offset: 1.0 for the legacy inclusive convention.
        max_log_scale: Upper bound of dw and dh after division by their weights.
        clamp_below: Also bound them by `-max_log_scale` (mmdetection).

    Returns:
        `[..., 4]` boxes `x1, y1, x2, y2` in pixels, float32 or float64; not clipped to the image.

    Raises:
        ValueError: Wrong shape, dtype, device or weights.
    """
    _check(deltas, "deltas", anchors, weights)
    deltas, anchors = upcast(deltas), upcast(anchors)
    anchor_centre, anchor_sides = _centres_and_sides(anchors, offset)
    of_centre, of_sides = _pairs(weights)
    move = _scaled(deltas[..., :2], of_centre, divide=True)
    grow = _scaled(deltas[..., 2:], of_sides, divide=True)
    grow = grow.clamp(-max_log_scale if clamp_below else None, max_log_scale)
    centre = move * anchor_sides + anchor_centre
    half = 0.5 * (torch.exp(grow) * anchor_sides)
    end = centre + half
    return torch.cat((centre - half, end - offset if offset else end), -1)
