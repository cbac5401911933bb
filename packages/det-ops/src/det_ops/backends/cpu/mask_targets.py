"""Mask targets on the CPU."""

import torch
from torch import Tensor

from det_ops.backends.cpu import function


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
    """`[R, size, size]` float32, 0 or 1."""
    edges, polygons, instances = mask_edges.contiguous(), mask_polygons.contiguous(), mask_instances.contiguous()
    image_index, instance = image_index.contiguous(), instance.contiguous()
    boxes = boxes.to(torch.float32).contiguous()
    out = torch.empty((len(boxes), size, size))
    function("rasterize_polygons")(
        edges.data_ptr(),
        edges.shape[1],
        polygons.data_ptr(),
        polygons.shape[1] - 1,
        instances.data_ptr(),
        instances.shape[1] - 1,
        len(edges),
        image_index.data_ptr(),
        instance.data_ptr(),
        boxes.data_ptr(),
        len(boxes),
        size,
        legacy,
        torch.get_num_threads(),
        out.data_ptr(),
    )
    return out


def bitmap_targets(
    bitmaps: Tensor, image_index: Tensor, instance: Tensor, boxes: Tensor, size: int, aligned: bool
) -> Tensor:
    """`[R, size, size]` float32 averages."""
    bitmaps, image_index, instance = bitmaps.contiguous(), image_index.contiguous(), instance.contiguous()
    boxes = boxes.to(torch.float32).contiguous()
    out = torch.empty((len(boxes), size, size))
    function("bitmap_targets")(
        bitmaps.data_ptr(),
        *bitmaps.shape,
        image_index.data_ptr(),
        instance.data_ptr(),
        boxes.data_ptr(),
        len(boxes),
        size,
        aligned,
        torch.get_num_threads(),
        out.data_ptr(),
    )
    return out
