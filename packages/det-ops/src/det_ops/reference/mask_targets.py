"""Mask targets in plain PyTorch: static shapes, any device; the oracle of the kernels."""

import torch
from torch import Tensor

from det_ops.reference import long_regions
from det_ops.reference.roi_align import taps

_BUDGET = 1 << 24
"""Elements of the largest temporary; regions are processed in chunks that respect it."""


def toggles(edges: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Where edges cross pixel columns, by the rules of COCO's `rleFrPoly`.

    COCO rounds vertices to a grid five times finer, walks each edge along its longer direction and toggles column `k`
    where the walk steps between fine columns `5k + 2` and `5k + 3`, at the smaller of the two fine rows.

    Args:
        edges: `[..., 4]` floating (float64 for exact results), `x1, y1, x2, y2` in mask pixels.
        size: Side of the mask.

    Returns:
        Row of the toggle `[..., size]` int64 in 0..size (all rows from it on change), and whether there is one, bool.
    """
    fine = torch.trunc(5.0 * edges.clamp(-1e7, 1e7) + 0.5)
    x1, y1, x2, y2 = fine[..., None].unbind(-2)  # [..., 1]
    dx, dy = (x2 - x1).abs(), (y2 - y1).abs()
    wide = dx >= dy
    swap = torch.where(wide, x1 > x2, y1 > y2)
    x1, x2 = torch.where(swap, x2, x1), torch.where(swap, x1, x2)
    y1, y2 = torch.where(swap, y2, y1), torch.where(swap, y1, y2)
    column = 5.0 * torch.arange(size, device=edges.device, dtype=edges.dtype) + 2.0  # [size]
    crosses = (torch.minimum(x1, x2) <= column) & (torch.maximum(x1, x2) >= column + 1.0)

    slope = (y2 - y1) / dx.clamp(min=1.0)
    step = column - x1
    along = torch.minimum(torch.trunc(y1 + slope * step + 0.5), torch.trunc(y1 + slope * (step + 1.0) + 0.5))

    # First step of a steep walk whose column is past the boundary: the guess of the real line, corrected by what the
    # rounded walk does one step before and after.
    slope = (x2 - x1) / dy.clamp(min=1.0)
    rising = x2 > x1
    guess = torch.ceil((column + 0.5 - x1) / torch.where(slope == 0.0, 1.0, slope))
    first = guess + 2.0
    for shift in (1.0, 0.0, -1.0):
        candidate = guess + shift
        at = torch.trunc(x1 + slope * candidate + 0.5)
        passed = torch.where(rising, at > column, at <= column) & (candidate >= 1.0)
        first = torch.where(passed, candidate, first)
    steep = y1 + first - 1.0

    row = torch.where(wide, along, steep)
    row = torch.ceil(((row + 0.5) / 5.0 - 0.5).clamp(0.0, float(size)))
    return torch.where(crosses, row, 0.0).to(torch.int64), crosses


def rasterize_polygons(
    mask_edges: Tensor,
    mask_polygons: Tensor,
    mask_instances: Tensor,
    image_index: Tensor,
    instance: Tensor,
    boxes: Tensor,
    size: int,
    legacy: bool,
) -> Tensor:
    """`[R, size, size]` float32; see `det_ops.rasterize_polygons`."""
    edges_per_image, polygons = mask_edges.shape[1], mask_polygons.shape[1] - 1
    number = torch.arange(edges_per_image, device=boxes.device, dtype=mask_polygons.dtype)
    # Polygon of each edge: the number of polygons that end at or before it.
    owner = torch.searchsorted(
        mask_polygons[:, 1:].contiguous(), number.expand(len(mask_polygons), -1).contiguous(), right=True
    ).clamp(max=max(polygons - 1, 0))
    chunk = max(1, _BUDGET // max(edges_per_image * size, polygons * size * (size + 1), 1))
    if polygons == 0 or edges_per_image == 0 or len(boxes) == 0:
        return torch.zeros((len(boxes), size, size), device=boxes.device)
    parts = []
    for image, slot, box in zip(
        image_index.split(chunk), instance.split(chunk), boxes.to(torch.float32).split(chunk), strict=True
    ):
        slot_known = slot.clamp(0, mask_instances.shape[1] - 2)
        bounds = mask_polygons[image]  # [r, Q+1]
        first = bounds.gather(1, mask_instances[image, slot_known].to(torch.int64)[:, None])
        last = bounds.gather(1, mask_instances[image, slot_known + 1].to(torch.int64)[:, None])
        mine = (number >= first) & (number < last) & (slot >= 0)[:, None]  # [r, V]
        rows, crosses = toggles(to_mask_pixels(mask_edges[image], box, size, legacy), size)  # [r, V, size]
        # [r, V, size], flat places in [Q, size + 1, size]; the last row takes what crosses below the mask.
        cell = (owner[image][..., None] * (size + 1) + rows) * size + torch.arange(size, device=boxes.device)
        counts = torch.zeros((len(box), polygons * (size + 1) * size), device=boxes.device, dtype=torch.int32)
        counts.scatter_add_(1, cell.flatten(1), (crosses & mine[..., None]).flatten(1).to(torch.int32))
        inside = counts.view(-1, polygons, size + 1, size)[:, :, :size].cumsum(2) % 2  # [r, Q, size, size]
        parts.append(inside.amax(1))
    return torch.cat(parts).to(torch.float32)


def to_mask_pixels(edges: Tensor, boxes: Tensor, size: int, legacy: bool) -> Tensor:
    """Edges `[R, V, 4]` moved and scaled from image pixels to the mask of their box `[R, 4]`, rounded as the source.

    detectron2 computes in float64 with float32 ratios, maskrcnn-benchmark in float32 with boxes of at least one pixel.
    """
    # No float64 on some accelerators: rounding ties may differ there.
    exact = torch.float32 if edges.device.type in ("npu", "mps") else torch.float64
    corner = boxes[:, None, :2].repeat(1, 1, 2)
    if legacy:
        corner64 = boxes.to(exact)
        side = torch.maximum(corner64[:, 2:], corner64[:, :2] + 1.0) - corner64[:, :2]
        ratio = (size / side).to(torch.float32)[:, None].repeat(1, 1, 2)
        return ((edges.to(torch.float32) - corner) * ratio).to(exact)
    side = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0.1)
    # Not `size / side`: PyTorch computes that as a reciprocal times size, which rounds twice.
    ratio = (torch.full_like(side, size) / side)[:, None].repeat(1, 1, 2)
    return (edges.to(exact) - corner.to(exact)) * ratio.to(exact)


def bitmap_targets(
    bitmaps: Tensor, image_index: Tensor, instance: Tensor, boxes: Tensor, size: int, aligned: bool
) -> Tensor:
    """`[R, size, size]` float32 averages; see `det_ops.bitmap_targets`."""
    batch, slots, height, width = bitmaps.shape
    live = (instance >= 0) & (image_index >= 0) & (instance < slots) & (image_index < batch)
    base = (image_index.clamp(0, batch - 1) * slots + instance.clamp(0, slots - 1)) * (height * width)  # [R]
    corners = boxes.to(torch.float32) - (0.5 if aligned else 0.0)
    rows, row_weights = taps(corners[:, 1], corners[:, 3], torch.full_like(base, height), height, size, -1, aligned)
    columns, column_weights = taps(corners[:, 0], corners[:, 2], torch.full_like(base, width), width, size, -1, aligned)
    flat = bitmaps.reshape(-1)
    out = torch.zeros((len(boxes), size, size), device=boxes.device)
    for i in range(rows.shape[2]):
        row = base[:, None] + rows[..., i] * width  # [R, size]
        for j in range(columns.shape[2]):
            weight = row_weights[:, :, None, i] * column_weights[:, None, :, j]  # [R, size, size]
            out = out + weight * flat[row[:, :, None] + columns[:, None, :, j]]
    for region in long_regions.marked(row_weights, column_weights):
        by_row, by_column = long_regions.weights(corners[region], (height, width), (size, size), aligned)
        bitmap = flat[base[region] :][: height * width].view(height, width).to(torch.float32)
        out[region] = by_row @ bitmap @ by_column.T
    return torch.where(live[:, None, None], out, 0.0)
