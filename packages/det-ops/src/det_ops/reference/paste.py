"""Pasting in plain PyTorch. `K` masks of side `S`, image of height `h` and width `w`."""

import torch
from torch import Tensor


def _grid_sample_weights(low: Tensor, high: Tensor, cells: int, extent: int) -> Tensor:
    """Weights `[K, extent, cells]` of mask cells for image pixels along one side, as bilinear `grid_sample`."""
    pixel = torch.arange(extent, device=low.device, dtype=torch.float32)
    low, high = low[:, None], high[:, None]
    position = (((pixel + 0.5 - low) / (high - low) * 2.0 - 1.0 + 1.0) * cells - 1.0) / 2.0
    near = (pixel >= low.floor() - 1.0) & (pixel < high.ceil() + 1.0) & (high > low)
    cell = torch.arange(cells, device=low.device, dtype=torch.float32)
    weights = (1.0 - (position[..., None] - cell).abs()).clamp(min=0.0)
    return torch.where(near[..., None], weights, 0.0)


def _expanded_weights(low: Tensor, high: Tensor, cells: int, extent: int) -> Tensor:
    """Weights `[K, extent, cells]` of mask cells for image pixels along one side, as torchvision's paste."""
    pixel = torch.arange(extent, device=low.device, dtype=torch.int64)
    padded = cells + 2
    half, centre = (high - low) * 0.5 * (padded / cells), (high + low) * 0.5
    # Far beyond any image, but safe to convert and subtract.
    first = (centre - half).clamp(-1e6, 1e6).to(torch.int64)[:, None]
    last = (centre + half).clamp(-1e6, 1e6).to(torch.int64)[:, None]
    size = (last - first + 1).clamp(min=1).to(torch.float32)
    # Not `padded / size`: PyTorch computes that as a reciprocal times `padded`, which rounds twice.
    position = (torch.full_like(size, padded) / size) * ((pixel - first).to(torch.float32) + 0.5) - 0.5
    position = position.clamp(min=0.0).clamp(max=padded - 1.0)
    cell = torch.arange(1, cells + 1, device=low.device, dtype=torch.float32)  # the padding cells are zero
    weights = (1.0 - (position[..., None] - cell).abs()).clamp(min=0.0)
    return torch.where(((pixel >= first) & (pixel <= last))[..., None], weights, 0.0)


def paste_masks(
    masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float | None, expanded: bool
) -> Tensor:
    """Bilinear resampling is separable: rows of weights times mask times columns of weights."""
    boxes = boxes.to(torch.float32)
    finite = boxes.isfinite().all(1)
    boxes = torch.where(finite[:, None], boxes, 0.0)
    weights = _expanded_weights if expanded else _grid_sample_weights
    rows = weights(boxes[:, 1], boxes[:, 3], masks.shape[1], height)  # [K, h, S]
    columns = weights(boxes[:, 0], boxes[:, 2], masks.shape[2], width)  # [K, w, S]
    values = rows @ masks.to(torch.float32) @ columns.mT  # [K, h, w]
    values = torch.where(finite[:, None, None], values, 0.0)
    if threshold is None:
        return values
    if expanded:
        return values > threshold
    touched = (rows.sum(2) > 0)[:, :, None] & (columns.sum(2) > 0)[:, None, :]
    return (values >= threshold) & touched
