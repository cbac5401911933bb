"""Multi-level RoIAlign on GPUs: one launch for all regions and levels, channels-last.

A program owns one cell of one region and a block of channels. A cell is a weighted sum of feature pixels whose weights
factor into rows and columns. Samples that share a row (column) are merged first, so a pixel is read, or added to, once
per cell however many samples touch it: half of torchvision's atomics or fewer. `T` is a chunk of columns, `C` of
channels. Sums are float32 (float32 atomics are also the faster ones for half precision gradients).
"""

# Compile-time arguments are in capitals, as in all of Triton's documentation.
# ruff: noqa: N803

import torch
import triton
import triton.language as tl
from torch import Tensor

from det_ops._layout import lay_out
from det_ops.backends.triton.common import launch

_COLUMNS = 4
"""Columns read together at least: what a cell of two samples touches at most."""


@triton.jit
def _side(start, end, pooled, cell_index, SAMPLING: tl.constexpr, ALIGNED: tl.constexpr):
    """First edge of a cell, its length and number of samples (float; 0 for regions that are not finite)."""
    length = end - start
    if not ALIGNED:
        length = tl.maximum(length, 1.0, propagate_nan=tl.PropagateNan.ALL)
    cell = tl.div_rn(length, pooled)
    samples = tl.ceil(cell)
    if SAMPLING > 0:
        samples = tl.full((), SAMPLING, tl.float32)
    counted = (tl.abs(start) < float("inf")) & (tl.abs(length) < float("inf"))
    counted = counted & (samples >= 1.0) & (samples <= 1073741824.0)
    return start + cell_index * cell, cell, tl.where(counted, samples, 0.0)


@triton.jit
def _position(origin, cell, samples, number):
    """Where sample `number` lies, rounded as in the reference."""
    return origin + tl.div_rn((number + 0.5) * cell, tl.maximum(samples, 1.0))


@triton.jit
def _clamped(position, limit):
    return tl.minimum(tl.maximum(position, 0.0), limit - 1.0)


@triton.jit
def _window(origin, cell, samples, limit, SAMPLING: tl.constexpr):
    """First row, and number of taps: adjacent rows of the map (adaptive sampling), or two per sample (fixed)."""
    first = tl.floor(_clamped(_position(origin, cell, samples, 0.0), limit))
    last = tl.floor(_clamped(_position(origin, cell, samples, samples - 1.0), limit))
    taps = tl.minimum(last + 1.0, limit - 1.0) - first + 1.0
    if SAMPLING > 0:
        taps = tl.full((), 2 * SAMPLING, tl.float32)
    return first, tl.where(samples > 0.0, taps, 0.0).to(tl.int32)


@triton.jit
def _taps(tap, first_tap, last_tap, first, origin, cell, samples, limit, SAMPLING: tl.constexpr):
    """Rows (float) and weights of taps `tap`; a row that an earlier tap of the cell has gets weight 0.

    `tap` is a number or a vector of consecutive numbers, from `first_tap`, of which those up to `last_tap` count.
    """
    if SAMPLING > 0:
        here = _clamped(_position(origin, cell, samples, (tap // 2).to(tl.float32)), limit)
        row = tl.minimum(tl.floor(here) + (tap % 2), limit - 1.0)
        begin, end = 0, SAMPLING
    else:
        row = first + tap
        # Samples between the rows around; two more for rounding.
        spread = tl.div_rn(tl.maximum(samples, 1.0), cell)
        low = first + first_tap - 1.0 - origin
        high = first + last_tap + 1.0 - origin
        begin = tl.minimum(tl.maximum(tl.floor(low * spread) - 2.0, 0.0), samples).to(tl.int32)
        end = tl.minimum(tl.maximum(tl.floor(high * spread) + 3.0, 0.0), samples).to(tl.int32)
    weight = row * 0.0
    repeated = row < -1.0
    for number in range(begin, end):
        position = _position(origin, cell, samples, number * 1.0)
        counted = (position >= -1.0) & (position <= limit)
        position = _clamped(position, limit)
        hat = tl.maximum(1.0 - tl.abs(position - row), 0.0)
        weight += tl.where(counted, hat, 0.0)
        if SAMPLING > 0:
            low_row = tl.floor(position)
            repeated = repeated | ((row == low_row) & (2 * number < tap))
            repeated = repeated | ((row == tl.minimum(low_row + 1.0, limit - 1.0)) & (2 * number + 1 < tap))
    return row, tl.where(repeated | (tap > last_tap), 0.0, weight)


@triton.jit
def _region(
    heights,
    widths,
    scales,
    batch,
    boxes,
    image_index,
    levels,
    region,
    cell,
    POOLED_HEIGHT: tl.constexpr,
    POOLED_WIDTH: tl.constexpr,
    SAMPLING: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """Level and image of a region, height and width of its map, and edge, length and samples of a cell, y then x."""
    level = tl.load(levels + region)
    image = tl.minimum(tl.maximum(tl.load(image_index + region), 0), batch - 1)
    live = (level >= 0) & (level < len(heights))
    height, width, scale = heights[0], widths[0], scales[0]
    for i in tl.static_range(1, len(heights)):
        height = tl.where(level == i, heights[i], height)
        width = tl.where(level == i, widths[i], width)
        scale = tl.where(level == i, scales[i], scale)
    shift = 0.5 if ALIGNED else 0.0
    box = boxes + region.to(tl.int64) * 4
    x1, y1 = tl.load(box) * scale - shift, tl.load(box + 1) * scale - shift
    x2, y2 = tl.load(box + 2) * scale - shift, tl.load(box + 3) * scale - shift
    y, cell_height, samples_y = _side(y1, y2, POOLED_HEIGHT * 1.0, cell // POOLED_WIDTH, SAMPLING, ALIGNED)
    x, cell_width, samples_x = _side(x1, x2, POOLED_WIDTH * 1.0, cell % POOLED_WIDTH, SAMPLING, ALIGNED)
    live = live & (samples_y > 0.0) & (samples_x > 0.0)
    samples_y, samples_x = tl.where(live, samples_y, 0.0), tl.where(live, samples_x, 0.0)
    return level, image, height, width, y, cell_height, samples_y, x, cell_width, samples_x


_SIZES = ("heights", "widths", "batch")


@triton.jit(do_not_specialize=_SIZES)
def _forward_kernel(
    features,
    heights,
    widths,
    scales,
    batch,
    boxes,
    image_index,
    levels,
    out,
    CHANNELS: tl.constexpr,
    POOLED_HEIGHT: tl.constexpr,
    POOLED_WIDTH: tl.constexpr,
    SAMPLING: tl.constexpr,
    ALIGNED: tl.constexpr,
    T: tl.constexpr,
    C: tl.constexpr,
):
    program = tl.program_id(0)
    region, cell = program // (POOLED_HEIGHT * POOLED_WIDTH), program % (POOLED_HEIGHT * POOLED_WIDTH)
    level, image, height, width, y, cell_height, samples_y, x, cell_width, samples_x = _region(
        heights, widths, scales, batch, boxes, image_index, levels, region, cell,
        POOLED_HEIGHT, POOLED_WIDTH, SAMPLING, ALIGNED,
    )  # fmt: skip
    feature = features[0]
    for i in tl.static_range(1, len(features)):
        feature = tl.where(level == i, features[i], feature)
    feature += image * height * width * CHANNELS
    channel = tl.program_id(1) * C + tl.arange(0, C)
    inside = channel < CHANNELS
    total = tl.zeros((T, C), tl.float32)
    limit_y, limit_x = height.to(tl.float32), width.to(tl.float32)
    first_y, taps_y = _window(y, cell_height, samples_y, limit_y, SAMPLING)
    first_x, taps_x = _window(x, cell_width, samples_x, limit_x, SAMPLING)
    zero = tl.full((), 0, tl.int32)  # makes a tensor of a loop's number, which the interpreter has as a Python int
    for chunk in range(0, taps_x, T):
        taps = chunk + tl.arange(0, T)
        last = tl.minimum(chunk + T, taps_x) - 1
        column, weight_x = _taps(taps, chunk, last, first_x, x, cell_width, samples_x, limit_x, SAMPLING)
        offset = column.to(tl.int32)[:, None] * CHANNELS + channel[None, :]
        for tap_y in range(taps_y):
            tap = zero + tap_y
            row, weight_y = _taps(tap, tap, tap, first_y, y, cell_height, samples_y, limit_y, SAMPLING)
            weight = weight_x * weight_y
            values = tl.load(
                feature + row.to(tl.int64) * width * CHANNELS + offset,
                mask=(weight != 0.0)[:, None] & inside[None, :],
                other=0.0,
            )
            total = tl.fma(tl.broadcast_to(weight[:, None], (T, C)), values.to(tl.float32), total)
    result = tl.sum(total, 0) / tl.maximum(samples_y * samples_x, 1.0)
    tl.store(out + program.to(tl.int64) * CHANNELS + channel, result.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=_SIZES)
def _backward_kernel(
    gradients,
    heights,
    widths,
    scales,
    batch,
    boxes,
    image_index,
    levels,
    grad,
    CHANNELS: tl.constexpr,
    POOLED_HEIGHT: tl.constexpr,
    POOLED_WIDTH: tl.constexpr,
    SAMPLING: tl.constexpr,
    ALIGNED: tl.constexpr,
    T: tl.constexpr,
    C: tl.constexpr,
):
    program = tl.program_id(0)
    region, cell = program // (POOLED_HEIGHT * POOLED_WIDTH), program % (POOLED_HEIGHT * POOLED_WIDTH)
    level, image, height, width, y, cell_height, samples_y, x, cell_width, samples_x = _region(
        heights, widths, scales, batch, boxes, image_index, levels, region, cell,
        POOLED_HEIGHT, POOLED_WIDTH, SAMPLING, ALIGNED,
    )  # fmt: skip
    gradient = gradients[0]
    for i in tl.static_range(1, len(gradients)):
        gradient = tl.where(level == i, gradients[i], gradient)
    gradient += image * height * width * CHANNELS
    channel = tl.program_id(1) * C + tl.arange(0, C)
    inside = channel < CHANNELS
    limit_y, limit_x = height.to(tl.float32), width.to(tl.float32)
    first_y, taps_y = _window(y, cell_height, samples_y, limit_y, SAMPLING)
    first_x, taps_x = _window(x, cell_width, samples_x, limit_x, SAMPLING)
    values = tl.load(grad + program.to(tl.int64) * CHANNELS + channel, mask=inside, other=0.0).to(tl.float32)
    values = values / tl.maximum(samples_y * samples_x, 1.0)
    zero = tl.full((), 0, tl.int32)  # makes a tensor of a loop's number, which the interpreter has as a Python int
    for chunk in range(0, taps_x, T):
        taps = chunk + tl.arange(0, T)
        last = tl.minimum(chunk + T, taps_x) - 1
        column, weight_x = _taps(taps, chunk, last, first_x, x, cell_width, samples_x, limit_x, SAMPLING)
        offset = column.to(tl.int32)[:, None] * CHANNELS + channel[None, :]
        for tap_y in range(taps_y):
            tap = zero + tap_y
            row, weight_y = _taps(tap, tap, tap, first_y, y, cell_height, samples_y, limit_y, SAMPLING)
            weight = weight_x * weight_y
            tl.atomic_add(
                gradient + row.to(tl.int64) * width * CHANNELS + offset,
                weight[:, None] * values[None, :],
                mask=(weight != 0.0)[:, None] & inside[None, :],
                sem="relaxed",
            )


def _options(channels: int) -> dict[str, int]:
    """Block of channels, columns that fill a warp, and warps so that a thread holds eight values of a chunk."""
    block = min(triton.next_power_of_2(channels), 256)
    columns = max(_COLUMNS, 32 // block)
    return {"T": columns, "C": block, "num_warps": max(1, columns * block // 256)}


def _launch(
    kernel: object,
    maps: list[Tensor],
    values: Tensor,
    boxes: Tensor,
    image_index: Tensor,
    levels: Tensor,
    pooled: tuple[int, int],
    scales: list[float],
    sampling_ratio: int,
    aligned: bool,
) -> None:
    """Run `kernel` on channels-last `maps [B, H, W, C]` and cells `values [R, P, P, C]`."""
    batch, _, _, channels = maps[0].shape
    regions = boxes.shape[0]
    if values.numel() == 0:
        return
    options = _options(channels)
    grid = (regions * pooled[0] * pooled[1], triton.cdiv(channels, options["C"]))
    launch(
        kernel,
        grid,
        tuple(maps),
        tuple(m.shape[1] for m in maps),
        tuple(m.shape[2] for m in maps),
        tuple(scales),
        batch,
        boxes.to(torch.float32).contiguous(),
        image_index.contiguous(),
        levels.contiguous(),
        values,
        CHANNELS=channels,
        POOLED_HEIGHT=pooled[0],
        POOLED_WIDTH=pooled[1],
        SAMPLING=max(sampling_ratio, 0),
        ALIGNED=aligned,
        **options,
    )


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
    """`[R, C, P, P]` of the features' dtype (not float64); see `det_ops.multilevel_roi_align`."""
    pooled = (pooled_height, pooled_width)
    return lay_out(align(features, boxes, image_index, levels, pooled, scales, sampling_ratio, aligned), channels_last)


def align(
    features: list[Tensor],
    boxes: Tensor,
    image_index: Tensor,
    levels: Tensor,
    pooled: tuple[int, int],
    scales: list[float],
    sampling_ratio: int,
    aligned: bool,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """`multilevel_roi_align` of the features' dtype or another (not float64), channels-last."""
    maps = [feature.permute(0, 2, 3, 1).contiguous() for feature in features]
    out = maps[0].new_empty((boxes.shape[0], *pooled, maps[0].shape[3]), dtype=dtype)
    _launch(_forward_kernel, maps, out, boxes, image_index, levels, pooled, scales, sampling_ratio, aligned)
    return out.permute(0, 3, 1, 2)


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
    """Gradients `[B, C, H, W]` of the features, channels-last in memory, of the dtype of `grad` (not float64).

    The order of the atomic additions is not defined: results differ in the last bits from run to run.
    """
    values = grad.permute(0, 2, 3, 1).contiguous()
    pooled = (values.shape[1], values.shape[2])
    maps = [
        torch.zeros((batch, height, width, values.shape[3]), dtype=torch.float32, device=grad.device)
        for height, width in zip(heights, widths, strict=True)
    ]
    _launch(_backward_kernel, maps, values, boxes, image_index, levels, pooled, scales, sampling_ratio, aligned)
    return [m.to(grad.dtype).permute(0, 3, 1, 2) for m in maps]
