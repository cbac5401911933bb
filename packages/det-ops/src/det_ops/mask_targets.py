"""Targets of the mask head: instance masks cut out of the ground truth at the resolution of the head.

`R` regions, `B` images, `M` instance slots, `Q` polygons and `V` edges per image. All sizes are configuration; unused
edges, polygons and slots are padding at the end.
"""

import torch
from torch import Tensor

from det_ops._checks import check_boxes, check_device, check_dtype, check_shape, describe, expect
from det_ops._operator import operator
from det_ops.reference import mask_targets as reference

__all__ = ["bitmap_targets", "rasterize_polygons"]


def rasterize_polygons(
    mask_edges: Tensor,
    mask_polygons: Tensor,
    mask_instances: Tensor,
    image_index: Tensor,
    instance: Tensor,
    boxes: Tensor,
    *,
    size: int = 28,
    legacy: bool = False,
) -> Tensor:
    """Polygons of one instance per region, moved and scaled to the region and rasterised by COCO's rules.

    Equal, pixel for pixel, to `pycocotools.mask.frPyObjects` and `merge` of the transformed polygons: a pixel is inside
    a polygon by the parity of crossings, and an instance is the union of its polygons. Only where edges cross the
    middles of pixel columns matters, so vertical edges may be left out, and an RLE mask is given as one polygon, of the
    horizontal edges of its runs.

    Args:
        mask_edges: `[B, V, 4]` float32, line segments `x1, y1, x2, y2` in image pixels; polygons are closed.
        mask_polygons: `[B, Q + 1]` int32, polygon `q` owns the edges `mask_polygons[q]` to `mask_polygons[q + 1]`.
        mask_instances: `[B, M + 1]` int32, slot `m` owns the polygons `mask_instances[m]` to `mask_instances[m + 1]`.
        image_index: `[R]` int64, image of each region.
        instance: `[R]` int64, slot of each region; negative: no instance, zeros.
        boxes: `[R, 4]` floating, `x1, y1, x2, y2` in image pixels.
        size: Side of the targets in pixels.
        legacy: Crop and round as maskrcnn-benchmark does (float32, boxes of at least one pixel) rather than as
            detectron2 does (float64, at least 0.1 pixel).

    Returns:
        `[R, size, size]` float32, 0 or 1. No gradient.

    Raises:
        ValueError: An argument has the wrong shape, dtype or device.
    """
    _check_regions(image_index, instance, boxes, size)
    _check_padded(mask_edges, "mask_edges", 3, torch.float32, "float32 Tensor[B, V, 4]")
    expect(mask_edges.shape[2] == 4, "mask_edges", "a float32 Tensor[B, V, 4]", mask_edges)
    _check_padded(mask_polygons, "mask_polygons", 2, torch.int32, "int32 Tensor[B, Q + 1]")
    _check_padded(mask_instances, "mask_instances", 2, torch.int32, "int32 Tensor[B, M + 1]")
    for tensor, name in ((mask_polygons, "mask_polygons"), (mask_instances, "mask_instances")):
        if tensor.shape[0] != mask_edges.shape[0] or tensor.shape[1] < 1:
            raise ValueError(
                f"{name} must have {mask_edges.shape[0]} rows, as mask_edges, and at least 1 column, "
                f"got {describe(tensor)}"
            )
        check_device(tensor, name, boxes, "boxes")
    check_device(mask_edges, "mask_edges", boxes, "boxes")
    return _rasterize_polygons(mask_edges, mask_polygons, mask_instances, image_index, instance, boxes, size, legacy)


def bitmap_targets(
    bitmaps: Tensor,
    image_index: Tensor,
    instance: Tensor,
    boxes: Tensor,
    *,
    size: int = 28,
    aligned: bool,
    threshold: float | None,
) -> Tensor:
    """RoIAlign (adaptive sampling) of one instance bitmap per region.

    torchvision has `aligned=False, threshold=None`; detectron2 and mmdetection have, with bitmaps, `aligned=True,
    threshold=0.5`.

    Args:
        bitmaps: `[B, M, H, W]` uint8, 0 or 1, at image size.
        image_index: `[R]` int64, image of each region.
        instance: `[R]` int64, slot of each region; negative: no instance, zeros.
        boxes: `[R, 4]` floating, `x1, y1, x2, y2` in image pixels.
        size: Side of the targets in pixels.
        aligned: As in `roi_align`.
        threshold: Values at least this become 1, others 0; None keeps the averages.

    Returns:
        `[R, size, size]` float32. No gradient.

    Raises:
        ValueError: An argument has the wrong shape, dtype or device.
    """
    _check_regions(image_index, instance, boxes, size)
    _check_padded(bitmaps, "bitmaps", 4, torch.uint8, "uint8 Tensor[B, M, H, W]")
    check_device(bitmaps, "bitmaps", boxes, "boxes")
    if boxes.shape[0] and bitmaps.numel() == 0:
        raise ValueError(f"bitmaps must not be empty where there are boxes, got {describe(bitmaps)}")
    values = _bitmap_targets(bitmaps, image_index, instance, boxes, size, aligned)
    return values if threshold is None else (values >= threshold).to(torch.float32)


def _check_regions(image_index: Tensor, instance: Tensor, boxes: Tensor, size: int) -> None:
    check_boxes(boxes, "boxes", 2, "R")
    for tensor, name in ((image_index, "image_index"), (instance, "instance")):
        check_shape(tensor, name, (boxes.shape[0],))
        check_dtype(tensor, name, torch.int64)
        check_device(tensor, name, boxes, "boxes")
    expect(size >= 1, "size", "at least 1", size)


def _check_padded(tensor: Tensor, name: str, ndim: int, dtype: torch.dtype, expected: str) -> None:
    expect(isinstance(tensor, Tensor) and tensor.ndim == ndim and tensor.dtype == dtype, name, f"a {expected}", tensor)


@operator(
    "rasterize_polygons(Tensor mask_edges, Tensor mask_polygons, Tensor mask_instances, Tensor image_index, "
    "Tensor instance, Tensor boxes, int size, bool legacy) -> Tensor",
    reference=reference.rasterize_polygons,
    functions=["rasterize_polygons"],
    fallback="counts of crossings per cell, static, no host read",
    by=(5,),
)
def _rasterize_polygons(_edges, _polygons, _instances, _image_index, _instance, boxes, size, _legacy):
    return boxes.new_empty((boxes.shape[0], size, size), dtype=torch.float32)


@operator(
    "bitmap_targets(Tensor bitmaps, Tensor image_index, Tensor instance, Tensor boxes, int size, bool aligned) "
    "-> Tensor",
    reference=reference.bitmap_targets,
    functions=["bitmap_targets"],
    fallback="one gather per pair of taps, static, no host read",
    by=(3,),
)
def _bitmap_targets(_bitmaps, _image_index, _instance, boxes, size, _aligned):
    return boxes.new_empty((boxes.shape[0], size, size), dtype=torch.float32)
