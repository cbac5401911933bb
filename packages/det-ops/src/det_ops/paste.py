"""Masks of the mask head resampled into the image.

Only the pixels of each box are computed. `K` masks of side `S`, image of height `h` and width `w`.
"""

import torch
from torch import Tensor

from det_ops import backends
from det_ops._checks import check_boxes, check_device, describe, expect
from det_ops.backends import _C, LIBRARY
from det_ops.rle import RLE, encode_images

__all__ = ["paste_masks", "paste_to_rle"]

MODES = ("grid_sample", "expanded")

LIBRARY.define(
    "paste_masks(Tensor masks, Tensor boxes, int height, int width, float? threshold, bool expanded) -> Tensor"
)


def paste_masks(
    masks: Tensor,
    boxes: Tensor,
    height: int,
    width: int,
    *,
    threshold: float | None = 0.5,
    mode: str = "grid_sample",
) -> Tensor:
    """Paste box-shaped masks into an image.

    `"grid_sample"` is detectron2's (and mmdetection's) way: bilinear at pixel centres, zero outside the mask, at most
    one pixel outside the box, inside where `value >= threshold`. `"expanded"` is maskrcnn-benchmark's and
    torchvision's: mask and box padded by one cell, box truncated to integers with inclusive width, resized, inside
    where `value > threshold`.

    Args:
        masks: `[K, S, S]` floating, probabilities.
        boxes: `[K, 4]` floating, `x1, y1, x2, y2` in pixels of the image.
        height: Height of the image.
        width: Width of the image.
        threshold: Probability from which on a pixel is inside; None returns the probabilities.
        mode: `"grid_sample"` or `"expanded"`.

    Returns:
        `[K, h, w]` bool, or float32 with `threshold=None`. No gradient. Empty and non-finite boxes give nothing.

    Raises:
        ValueError: An argument has the wrong shape, dtype or device, or the mode is unknown.
    """
    _check(masks, boxes, height, width, mode)
    return torch.ops.det_ops.paste_masks(
        masks, boxes, height, width, None if threshold is None else float(threshold), mode == "expanded"
    )


def paste_to_rle(
    masks: Tensor,
    boxes: Tensor,
    height: int,
    width: int,
    *,
    threshold: float = 0.5,
    mode: str = "grid_sample",
) -> list[RLE]:
    """`encode_rle(paste_masks(...))` without the image of each mask.

    Args:
        masks: `[K, S, S]` floating, probabilities.
        boxes: `[K, 4]` floating, `x1, y1, x2, y2` in pixels of the image.
        height: Height of the image.
        width: Width of the image.
        threshold: Probability from which on a pixel is inside.
        mode: As in `paste_masks`.

    Returns:
        `K` dictionaries `{"size": [h, w], "counts": str}`.

    Raises:
        ValueError: An argument has the wrong shape, dtype or device, or the mode is unknown.
    """
    _check(masks, boxes, height, width, mode)
    masks, boxes = masks.detach().cpu(), boxes.detach().cpu()
    if _C is not None and backends.native(masks):
        masks, boxes = masks.to(torch.float32).contiguous(), boxes.to(torch.float32).contiguous()
        texts = _C.paste_to_rle(
            masks.data_ptr(),
            boxes.data_ptr(),
            masks.shape[0],
            masks.shape[1],
            masks.shape[2],
            height,
            width,
            threshold,
            mode == "expanded",
            torch.get_num_threads(),
        )
        return [{"size": [height, width], "counts": text} for text in texts]
    rles: list[RLE] = []
    for mask, box in zip(masks.split(16), boxes.split(16), strict=True):
        rles += encode_images(paste_masks(mask, box, height, width, threshold=threshold, mode=mode))
    return rles


def _check(masks: Tensor, boxes: Tensor, height: int, width: int, mode: str) -> None:
    if not (isinstance(masks, Tensor) and masks.ndim == 3 and masks.is_floating_point()):
        raise ValueError(f"masks must be a floating Tensor[K, S, S], got {describe(masks)}")
    check_boxes(boxes, "boxes", 2, "K")
    expect(boxes.shape[0] == masks.shape[0], "boxes", f"a Tensor[{masks.shape[0]}, 4], one per mask", boxes)
    expect(min(masks.shape[1:]) >= 1, "masks", "a Tensor[K, S, S] with S at least 1", masks)
    check_device(boxes, "boxes", masks, "masks")
    expect(height >= 1, "height", "at least 1", height)
    expect(width >= 1, "width", "at least 1", width)
    expect(mode in MODES, "mode", f"one of {', '.join(MODES)}", mode)


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


def _reference(
    masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float | None, expanded: bool
) -> Tensor:
    """Bilinear resampling is separable: rows of weights times mask times columns of weights."""
    boxes = boxes.to(torch.float32)
    finite = boxes.isfinite().all(1)
    boxes = torch.where(finite[:, None], boxes, 0.0)
    weights = _expanded_weights if expanded else _grid_sample_weights
    rows = weights(boxes[:, 1], boxes[:, 3], masks.shape[1], height)
    columns = weights(boxes[:, 0], boxes[:, 2], masks.shape[2], width)
    values = rows @ masks.to(torch.float32) @ columns.mT  # [K, h, w]
    values = torch.where(finite[:, None, None], values, 0.0)
    if threshold is None:
        return values
    if expanded:
        return values > threshold
    touched = (rows.sum(2) > 0)[:, :, None] & (columns.sum(2) > 0)[:, None, :]
    return (values >= threshold) & touched


@torch.library.impl(LIBRARY, "paste_masks", "CompositeExplicitAutograd")
def _paste(masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float | None, expanded: bool) -> Tensor:
    if _C is not None and backends.native(masks):
        masks, boxes = masks.to(torch.float32).contiguous(), boxes.to(torch.float32).contiguous()
        out = torch.empty((masks.shape[0], height, width), dtype=torch.float32 if threshold is None else torch.bool)
        _C.paste_masks(
            masks.data_ptr(),
            boxes.data_ptr(),
            masks.shape[0],
            masks.shape[1],
            masks.shape[2],
            height,
            width,
            threshold or 0.0,
            threshold is not None,
            expanded,
            torch.get_num_threads(),
            out.data_ptr(),
        )
        return out
    return _reference(masks, boxes, height, width, threshold, expanded)


@torch.library.register_fake("det_ops::paste_masks", lib=LIBRARY)
def _(masks, _boxes, height, width, threshold, _expanded):
    dtype = torch.float32 if threshold is None else torch.bool
    return masks.new_empty((masks.shape[0], height, width), dtype=dtype)


backends.register("paste_masks", "cpu", "C++", "the pixels of each box alone; threads over masks")
backends.register("paste_to_rle", "cpu", "C++", "run lengths without the image; threads over masks")
for _device in ("cuda", "npu"):
    backends.register("paste_masks", _device, "reference", "two batched matrix products per mask, no host read")
    backends.register("paste_to_rle", _device, "C++", "masks are copied to the host: strings live there")
