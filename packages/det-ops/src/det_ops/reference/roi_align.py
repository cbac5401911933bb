"""RoIAlign in plain PyTorch: static shapes, any device; the oracle of the kernels.

`R` regions, `P` pooled cells along a side (height and width may differ), `C` channels. RoIAlign is separable: a cell is
a weighted sum of feature rows times a weighted sum of feature columns. Both lists of weights ("taps") are computed for
all regions first; then one gather per pair of taps accumulates all levels and images at once.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from det_ops._layout import empty_nhwc_like, lay_out
from det_ops.reference import long_regions


def taps(
    start: Tensor, end: Tensor, limit: Tensor, longest: int, pooled: int, sampling_ratio: int, aligned: bool
) -> tuple[Tensor, Tensor]:
    """Feature rows (or columns) and weights of each cell along one side.

    Args:
        start: `[R]` first edge of the region in feature coordinates.
        end: `[R]` last edge.
        limit: `[R]` int64, number of rows of the region's feature map.
        longest: Largest value `limit` can take.
        pooled: Number of cells.
        sampling_ratio: Samples per cell; 0 or less: `ceil((end - start) / pooled)`.
        aligned: Whether regions may be smaller than one pixel.

    Returns:
        Rows `[R, P, T]` int64 and weights `[R, P, T]` (already divided by the number of samples). The weights of a
        region for which adaptive sampling has no room are NaN, see :mod:`det_ops.reference.long_regions`.
    """
    length = end - start
    if not aligned:
        length = length.clamp(min=1.0)
    finite = start.isfinite() & length.isfinite()
    start, length = start.nan_to_num(0.0, 0.0, 0.0), length.nan_to_num(0.0, 0.0, 0.0)
    cell = length / pooled
    if sampling_ratio > 0:
        slots = sampling_ratio
        samples = torch.full_like(cell, float(sampling_ratio))
    else:
        slots = -(-(longest + 2) // pooled)
        samples = torch.ceil(length / pooled).clamp(min=0.0)
    number = torch.arange(slots, device=start.device, dtype=start.dtype)
    origin = start[:, None] + torch.arange(pooled, device=start.device, dtype=start.dtype) * cell[:, None]  # [R, P]
    step = (number + 0.5) * cell[:, None] / samples.clamp(min=1.0)[:, None]  # [R, S]
    position = origin[:, :, None] + step[:, None, :]  # [R, P, S]
    edge = limit.to(start.dtype)[:, None, None]
    counted = (position >= -1.0) & (position <= edge) & (number < samples[:, None, None]) & finite[:, None, None]
    position = position.clamp(min=0.0).minimum(edge - 1.0)
    if sampling_ratio > 0:
        rows = position.floor()[..., None] + torch.arange(2, device=start.device, dtype=start.dtype)
        weights = (1.0 - (position[..., None] - rows).abs()).clamp(min=0.0) * counted[..., None]
        rows, weights = rows.flatten(2), weights.flatten(2)
    else:
        # Samples lie at most one pixel apart, so the rows of a cell are a window with one weight per row.
        window = torch.arange(slots + 2, device=start.device, dtype=start.dtype)
        rows = position[..., :1].floor() + window  # [R, P, T]
        hats = (1.0 - (position[..., None, :] - rows[..., :, None]).abs()).clamp(min=0.0)  # [R, P, T, S]
        weights = (hats * counted[..., None, :]).sum(-1)
        weights = torch.where((samples > slots)[:, None, None], float("nan"), weights)
    weights = weights / samples.clamp(min=1.0)[:, None, None]
    return rows.minimum(edge - 1.0).to(torch.int64), weights


def _geometry(
    heights: list[int],
    widths: list[int],
    batch: int,
    boxes: Tensor,
    image_index: Tensor,
    levels: Tensor,
    pooled: tuple[int, int],
    scales: list[float],
    sampling_ratio: int,
    aligned: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Flat index of each region's map `[R]`, its width `[R]`, and rows, row weights, columns, column weights."""
    bases, base = [], 0
    for height, width in zip(heights, widths, strict=True):
        bases.append(base)
        base += batch * height * width
    level = levels.clamp(0, len(heights) - 1)
    height, width, first = (_by_level(level, values, torch.int64) for values in (heights, widths, bases))
    corners = _corners(boxes, _by_level(level, scales, boxes.dtype)[:, None], aligned)
    rows, row_weights = taps(corners[:, 1], corners[:, 3], height, max(heights), pooled[0], sampling_ratio, aligned)
    columns, column_weights = taps(corners[:, 0], corners[:, 2], width, max(widths), pooled[1], sampling_ratio, aligned)
    live = ((levels >= 0) & (levels < len(heights)))[:, None, None]
    row_weights = torch.where(live, row_weights, 0.0)
    column_weights = torch.where(live, column_weights, 0.0)
    return first + image_index.clamp(0, batch - 1) * height * width, width, rows, row_weights, columns, column_weights


def _by_level(level: Tensor, values: Sequence[float], dtype: torch.dtype) -> Tensor:
    """`values[level]`, without a table that would be copied from the host."""
    return torch.stack([(level == i).to(dtype) * value for i, value in enumerate(values)]).sum(0)


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
    channels_last: bool,
) -> Tensor:
    """`[R, C, P, P]` of the features' dtype; see `det_ops.multilevel_roi_align`."""
    batch, channels = features[0].shape[:2]
    pooled = (pooled_height, pooled_width)
    flat = torch.cat([feature.permute(0, 2, 3, 1).reshape(-1, channels) for feature in features])  # [B*H*W, C]
    compute = torch.float64 if flat.dtype == torch.float64 else torch.float32
    heights, widths = [f.shape[2] for f in features], [f.shape[3] for f in features]
    base, width, rows, row_weights, columns, column_weights = _geometry(
        heights, widths, batch, boxes.to(compute), image_index, levels, pooled, scales, sampling_ratio, aligned
    )
    check_images(image_index, levels, len(features), batch)
    pooled_values = torch.zeros((len(boxes), *pooled, channels), device=flat.device, dtype=compute)
    for i in range(rows.shape[2]):
        row = base[:, None] + rows[..., i] * width[:, None]  # [R, P]
        for j in range(columns.shape[2]):
            index = row[:, :, None] + columns[:, None, :, j]  # [R, P, P]
            weight = row_weights[:, :, None, i] * column_weights[:, None, :, j]  # [R, P, P]
            pooled_values = pooled_values + weight[..., None] * flat[index].to(compute)
    for region in long_regions.marked(row_weights, column_weights):
        level, image = int(levels[region]), int(image_index[region])
        corners = _corners(boxes[region].to(compute), scales[level], aligned)
        by_row, by_column = long_regions.weights(corners, (heights[level], widths[level]), pooled, aligned)
        values = features[level][image].to(compute)  # [C, H, W]
        pooled_values[region] = torch.einsum("ph,chw,qw->pqc", by_row, values, by_column)
    return lay_out(pooled_values.to(flat.dtype).permute(0, 3, 1, 2), channels_last)


def multilevel_roi_align_backward(
    grad: Tensor,
    boxes: Tensor,
    image_index: Tensor,
    levels: Tensor,
    heights: list[int],
    widths: list[int],
    batch: int,
    scales: list[float],
    sampling_ratio: int,
    aligned: bool,
) -> list[Tensor]:
    """Gradients `[B, C, H, W]` of the features, channels-last in memory, of the dtype of `grad`."""
    channels, pooled = grad.shape[1], (grad.shape[2], grad.shape[3])
    compute = torch.float64 if grad.dtype == torch.float64 else torch.float32
    base, width, rows, row_weights, columns, column_weights = _geometry(
        heights, widths, batch, boxes.to(compute), image_index, levels, pooled, scales, sampling_ratio, aligned
    )
    values = grad.permute(0, 2, 3, 1).to(compute)  # [R, P, P, C]
    sizes = [batch * height * width for height, width in zip(heights, widths, strict=True)]
    long = long_regions.marked(row_weights, column_weights)
    if long:
        row_weights, column_weights = row_weights.nan_to_num(0.0), column_weights.nan_to_num(0.0)
    flat = torch.zeros((sum(sizes), channels), device=grad.device, dtype=compute)
    for i in range(rows.shape[2]):
        row = base[:, None] + rows[..., i] * width[:, None]
        for j in range(columns.shape[2]):
            index = row[:, :, None] + columns[:, None, :, j]
            weight = row_weights[:, :, None, i] * column_weights[:, None, :, j]
            flat.index_add_(0, index.flatten(), (weight[..., None] * values).reshape(-1, channels))
    for region in long:
        level, image = int(levels[region]), int(image_index[region])
        size = (heights[level], widths[level])
        corners = _corners(boxes[region].to(compute), scales[level], aligned)
        by_row, by_column = long_regions.weights(corners, size, pooled, aligned)
        target = flat.split(sizes)[level].view(batch, *size, channels)[image]  # [H, W, C]
        target += torch.einsum("ph,pqc,qw->hwc", by_row, values[region], by_column)
    grads = [
        part.view(batch, height, width, channels).to(grad.dtype).permute(0, 3, 1, 2)
        for part, height, width in zip(flat.split(sizes), heights, widths, strict=True)
    ]
    return [empty_nhwc_like(part).copy_(part) for part in grads]


def _corners(boxes: Tensor, scale: float | Tensor, aligned: bool) -> Tensor:
    """Boxes `[..., 4]` in feature coordinates."""
    return boxes * scale - (0.5 if aligned else 0.0)


def check_images(image_index: Tensor, levels: Tensor, num_levels: int, batch: int) -> None:
    """Raise ValueError if a region that is not padding names an image outside the batch; on the CPU only.

    Elsewhere the host would have to wait for the device: there the nearest image of the batch is taken.
    """
    if image_index.device.type != "cpu":
        return
    named = torch.where((levels >= 0) & (levels < num_levels), image_index, 0)
    if not torch.equal(named, named.clamp(0, max(batch - 1, 0))):
        raise ValueError(f"image_index must be within the batch of {batch} images, got {named.tolist()}")
