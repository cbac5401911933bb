"""Greedy non-maximum suppression in ExecuTorch: a loop over a fixed number of rounds, one for each box to keep.

`L` images or groups, `N` boxes, `K` slots of the result.
"""

from typing import Any

import torch
from torch import Tensor

from det_ops.boxes import intersection_and_union
from det_ops.executorch.aten import sort_stable
from det_ops.reference.nms import float32_floor


def nms(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor | None,
    valid: Tensor | None,
    iou_threshold: float,
    max_output: int,
    offset: float,
) -> tuple[Tensor, Tensor]:
    """Boxes `[*, N, 4]` and scores `[*, N]` in float32 to indices and `kept`, both `[*, K]`; see `det_ops.nms`.

    A round takes the first box alive and strikes out what it overlaps. Unrolled, a detector has thousands of operators,
    and each pass of ExecuTorch's compiler takes seconds for them.
    """
    lead, count = boxes.shape[:-2], boxes.shape[-2]
    threshold = float32_floor(iou_threshold)
    _, order = sort_stable(scores.reshape(-1, count), dim=1, descending=True)
    boxes = boxes.reshape(-1, count, 4).gather(1, order[..., None].expand(-1, -1, 4))
    alive = torch.ones_like(order) if valid is None else valid.reshape(-1, count).long().gather(1, order)
    # Falling keys, of which no two are equal; 0 is a box that is not alive.
    keys = alive * torch.arange(count, 0, -1, device=boxes.device)
    fixed = (boxes,) if groups is None else (boxes, groups.reshape(-1, count).gather(1, order))

    def strike(keys: Tensor, round_: Tensor, boxes: Tensor, *groups: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG001
        first, place = keys.max(1, keepdim=True)  # [L, 1]
        best = boxes.gather(1, place[..., None].expand(-1, -1, 4))
        intersection, union = intersection_and_union(best, boxes, offset)
        dead = ((intersection / union > threshold)[:, 0]) | (keys == first)
        for group in groups:
            dead = dead & (group == group.gather(1, place))
        return torch.where(dead, 0, keys), first[:, 0].clone()

    rounds = torch.zeros(max_output, 1, device=boxes.device)
    _, best = _scan(strike, keys, rounds, fixed)  # [K, L]
    best = best.transpose(0, 1)
    kept = best > 0
    indices = torch.where(kept, order.gather(1, (count - best).clamp(max=count - 1)), 0)
    return indices.reshape(*lead, max_output), kept.reshape(*lead, max_output)


def _scan(step: Any, state: Tensor, along: Tensor, fixed: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    return torch.ops.higher_order.scan(step, [state], [along], fixed)
