"""RoIAlign over a pyramid in ExecuTorch: products of matrices of weights and of whole maps, region by region.

A cell is a weighted sum of rows times one of columns, most of whose weights are zero. `R` regions, `r` of them at a
time, `B` images, `C` channels, `P` pooled side, `H, W` map.
"""

import torch
from torch import Tensor

from det_ops.reference.roi_align import _geometry

NUMBERS = 1 << 23
"""Of an intermediate result, `[r, P, W, C]`."""


def multilevel_roi_align(
    features: list[Tensor],
    boxes: Tensor,
    image_index: Tensor,
    levels: Tensor,
    pooled_height: int,
    pooled_width: int,
    scales: list[float],
    sampling_ratio: int,
    aligned: bool,
    channels_last: bool,  # noqa: ARG001 - a program has the layout that its compiler chooses
) -> Tensor:
    """`[R, C, P, P]` of regions that are no longer than the maps; see `det_ops.multilevel_roi_align`."""
    batch, channels = features[0].shape[:2]
    pooled, regions = (pooled_height, pooled_width), len(boxes)
    heights, widths = [f.shape[2] for f in features], [f.shape[3] for f in features]
    _, _, rows, row_weights, columns, column_weights = _geometry(
        heights, widths, batch, boxes.float(), image_index, levels, pooled, scales, sampling_ratio, aligned
    )
    by_row = row_weights.new_zeros((regions, pooled[0], max(heights))).scatter_add(2, rows, row_weights)
    by_column = row_weights.new_zeros((regions, pooled[1], max(widths))).scatter_add(2, columns, column_weights)
    images = torch.arange(batch, device=boxes.device)
    found = row_weights.new_zeros((regions * pooled[0], pooled[1], channels))
    for level, feature in enumerate(features):
        height, width = heights[level], widths[level]
        own = (levels[:, None] == level) & (image_index[:, None] == images)  # [R, B]
        down = (by_row[:, :, None, :height] * own[:, None, :, None]).reshape(-1, batch * height)  # [R * P, B * H]
        across = by_column[:, None, :, :width].expand(-1, pooled[0], -1, -1).reshape(-1, pooled[1], width)
        flat = feature.float().permute(0, 2, 3, 1).reshape(batch * height, width * channels)
        step = max(1, NUMBERS // (pooled[0] * width * channels)) * pooled[0]
        parts = [
            torch.bmm(some, (part @ flat).view(-1, width, channels))
            for part, some in zip(down.split(step), across.split(step), strict=True)
        ]
        found = found + torch.cat(parts)
    return found.view(regions, *pooled, channels).permute(0, 3, 1, 2).to(features[0].dtype)
