"""Mask targets on GPUs: a program rasterises the polygons of one region; bitmaps are RoIAlign of one channel.

As in the C++ kernel a column is a word with a bit per row, and an edge that crosses the column flips all bits from its
row on. A program looks at `E` edges and `C` columns together; only the edges of the region's own instance are read,
however many the padding has room for.
"""

# Compile-time arguments are in capitals, as in all of Triton's documentation.
# ruff: noqa: N803

import torch
import triton
import triton.language as tl
from torch import Tensor

from det_ops.backends.triton.common import launch
from det_ops.backends.triton.roi_align import align

_EDGES, _COLUMNS, _ROWS = 16, 32, 64


@triton.jit
def _trunc(x):
    return tl.where(x < 0.0, tl.ceil(x), tl.floor(x))


@triton.jit
def _scale(low, high, size, LEGACY: tl.constexpr):
    """Mask pixels per image pixel along one side, float32, rounded as the source does."""
    if LEGACY:
        low, high = low.to(tl.float64), high.to(tl.float64)
        side = tl.maximum(high, low + 1.0, propagate_nan=tl.PropagateNan.ALL) - low
        scale = (size.to(tl.float64) / side).to(tl.float32)
    else:
        scale = tl.div_rn(size.to(tl.float32), tl.maximum(high - low, 0.1, propagate_nan=tl.PropagateNan.ALL))
    return scale


@triton.jit
def _fine(value, corner, scale, LEGACY: tl.constexpr):
    """Coordinates of the region's mask on a grid five times finer, float64 whole numbers; whether they are numbers."""
    if LEGACY:
        moved = ((value - corner) * scale).to(tl.float64)
    else:
        moved = (value.to(tl.float64) - corner.to(tl.float64)) * scale.to(tl.float64)
    return _trunc(5.0 * tl.minimum(tl.maximum(moved, -1e7), 1e7) + 0.5), moved == moved


@triton.jit
def _toggles(x1, y1, x2, y2, column, size):
    """Row from which an edge flips a column, float64 in 0..size; whether it does (see the reference)."""
    dx, dy = tl.abs(x2 - x1), tl.abs(y2 - y1)
    wide = dx >= dy
    swap = tl.where(wide, x1 > x2, y1 > y2)
    x1, x2 = tl.where(swap, x2, x1), tl.where(swap, x1, x2)
    y1, y2 = tl.where(swap, y2, y1), tl.where(swap, y1, y2)
    crosses = (tl.minimum(x1, x2) <= column) & (tl.maximum(x1, x2) >= column + 1.0)

    slope = (y2 - y1) / tl.maximum(dx, 1.0)
    step = column - x1
    along = tl.minimum(_trunc(y1 + slope * step + 0.5), _trunc(y1 + slope * (step + 1.0) + 0.5))

    slope = (x2 - x1) / tl.maximum(dy, 1.0)
    rising = x2 > x1
    guess = tl.ceil((column + 0.5 - x1) / tl.where(slope == 0.0, 1.0, slope))
    first = guess + 2.0
    for back in tl.static_range(3):
        candidate = guess + (1.0 - back)
        at = _trunc(x1 + slope * candidate + 0.5)
        passed = tl.where(rising, at > column, at <= column) & (candidate >= 1.0)
        first = tl.where(passed, candidate, first)

    row = tl.where(wide, along, y1 + first - 1.0)
    return tl.ceil(tl.minimum(tl.maximum((row + 0.5) / 5.0 - 0.5, 0.0), size)), crosses


@triton.jit
def _polygons_kernel(
    boxes,
    image_index,
    instance,
    edges,
    polygons,
    instances,
    out,
    batch,
    edge_slots,
    polygon_slots,
    instance_slots,
    size,
    LEGACY: tl.constexpr,
    E: tl.constexpr,
    C: tl.constexpr,
    R: tl.constexpr,
):
    region = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * C + tl.arange(0, C)
    first_row = tl.program_id(2) * R
    image, slot = tl.load(image_index + region), tl.load(instance + region)
    live = (image >= 0) & (image < batch) & (slot >= 0) & (slot < instance_slots)
    image, slot = tl.where(live, image, 0), tl.where(live, slot, 0)
    owned = instances + image * (instance_slots + 1) + slot
    last_polygon = tl.where(live, tl.minimum(tl.load(owned + 1), polygon_slots), 0)
    bounds = polygons + image * (polygon_slots + 1)
    lines = edges + image * edge_slots * 4

    box = boxes + region * 4
    left, top, right, bottom = tl.load(box), tl.load(box + 1), tl.load(box + 2), tl.load(box + 3)
    zero = tl.full((), 0, tl.int32)  # makes tensors of numbers, which the interpreter has as Python's
    scale_x, scale_y = _scale(left, right, zero + size, LEGACY), _scale(top, bottom, zero + size, LEGACY)
    boundary = (5 * column + 2).to(tl.float64)[None, :]
    limit = (zero + size).to(tl.float64)

    inside = tl.zeros((C,), tl.int64)
    for polygon in range(tl.maximum(tl.load(owned), 0), last_polygon):
        last = tl.minimum(tl.load(bounds + polygon + 1), edge_slots)
        parity = tl.zeros((C,), tl.int64)
        for begin in range(tl.maximum(tl.load(bounds + polygon), 0), last, E):
            place = begin + tl.arange(0, E)
            line = lines + place * 4
            x1, is_x1 = _fine(tl.load(line, mask=place < last, other=0.0), left, scale_x, LEGACY)
            y1, is_y1 = _fine(tl.load(line + 1, mask=place < last, other=0.0), top, scale_y, LEGACY)
            x2, is_x2 = _fine(tl.load(line + 2, mask=place < last, other=0.0), left, scale_x, LEGACY)
            y2, is_y2 = _fine(tl.load(line + 3, mask=place < last, other=0.0), top, scale_y, LEGACY)
            known = (place < last) & is_x1 & is_y1 & is_x2 & is_y2
            row, crosses = _toggles(x1[:, None], y1[:, None], x2[:, None], y2[:, None], boundary, limit)
            # Bits `row` and above of this program's rows; a shift by all of them is not defined.
            shift = tl.minimum(tl.maximum(row - first_row, 0.0), R * 1.0).to(tl.int64)
            flips = crosses & known[:, None] & (shift < R)
            word = tl.where(flips, tl.full((E, C), -1, tl.int64) << tl.minimum(shift, R - 1), 0)
            parity = parity ^ tl.xor_sum(word, 0)
        inside = inside | parity

    row = tl.arange(0, R)
    pixel = (inside[None, :] >> row[:, None].to(tl.int64)) & 1
    place = out + (region * size + first_row + row[:, None]) * size + column[None, :]
    tl.store(place, pixel.to(tl.float32), mask=(first_row + row[:, None] < size) & (column[None, :] < size))


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
    """The operator `det_ops::rasterize_polygons`; equal to the CPU's bit by bit."""
    out = torch.empty((len(boxes), size, size), device=boxes.device)
    batch, edge_slots = mask_edges.shape[:2]
    if out.numel() == 0 or batch == 0 or mask_instances.shape[1] < 2:
        return out.zero_()
    rows = min(triton.next_power_of_2(size), _ROWS)
    launch(
        _polygons_kernel,
        (len(boxes), triton.cdiv(size, _COLUMNS), triton.cdiv(size, rows)),
        boxes.to(torch.float32).contiguous(),
        image_index.contiguous(),
        instance.contiguous(),
        mask_edges.contiguous(),
        mask_polygons.contiguous(),
        mask_instances.contiguous(),
        out,
        batch,
        edge_slots,
        mask_polygons.shape[1] - 1,
        mask_instances.shape[1] - 1,
        size,
        LEGACY=legacy,
        E=_EDGES,
        C=_COLUMNS,
        R=rows,
        num_warps=4,
    )
    return out


def bitmap_targets(
    bitmaps: Tensor, image_index: Tensor, instance: Tensor, boxes: Tensor, size: int, aligned: bool
) -> Tensor:
    """The operator `det_ops::bitmap_targets`: each bitmap is an image of one channel."""
    batch, slots = bitmaps.shape[:2]
    live = (image_index >= 0) & (image_index < batch) & (instance >= 0) & (instance < slots)
    return align(
        [bitmaps.reshape(batch * slots, 1, *bitmaps.shape[2:])],
        boxes,
        image_index * slots + instance,
        torch.where(live, 0, -1),
        (size, size),
        [1.0],
        -1,
        aligned,
        dtype=torch.float32,
    )[:, 0]
