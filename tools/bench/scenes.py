"""Images with rectangular objects, resident on a device, as the detectors of every side want them."""

import torch
from torch import Tensor

Batch = dict[str, Tensor]


def make_scene(images: int, height: int, width: int, *, classes: int, objects: int = 8, seed: int = 0) -> Batch:
    """A batch of random pixels with `objects` boxes an image; masks as polygons and as bitmaps."""
    random = torch.Generator().manual_seed(seed)
    limit = torch.tensor([width, height, width, height])
    side = torch.exp(torch.rand(images, objects, 2, generator=random) * 2.3 + 2.5).clamp(max=min(height, width) * 0.7)
    corner = torch.rand(images, objects, 2, generator=random) * (limit[:2] - side)
    boxes = torch.cat([corner, corner + side], -1).round()
    x1, y1, x2, y2 = boxes.unbind(-1)
    sides = [(x1, y1, x2, y1), (x2, y1, x2, y2), (x2, y2, x1, y2), (x1, y2, x1, y1)]
    slots = torch.arange(objects + 1, dtype=torch.int32).repeat(images, 1)
    return {
        "images": torch.randint(0, 256, (images, 3, height, width), generator=random, dtype=torch.uint8),
        "image_sizes": torch.tensor([[height, width]] * images, dtype=torch.int32),
        "scales": torch.ones(images, 2),
        "image_ids": torch.arange(images),
        "boxes": boxes,
        "labels": torch.randint(0, classes, (images, objects), generator=random),
        "valid": torch.ones(images, objects, dtype=torch.bool),
        "crowd": torch.zeros(images, objects, dtype=torch.bool),
        "mask_edges": torch.stack([torch.stack(line, -1) for line in sides], 2).flatten(1, 2),
        "mask_polygons": slots * 4,
        "mask_instances": slots,
        "mask_bitmaps": _filled(boxes, height, width),
    }


def _filled(boxes: Tensor, height: int, width: int) -> Tensor:
    """The rectangles `[B, M, 4]` as bitmaps `[B, M, height, width]` uint8."""
    x1, y1, x2, y2 = boxes[..., None].unbind(-2)
    rows, columns = torch.arange(height) + 0.5, torch.arange(width) + 0.5
    inside_y, inside_x = (rows >= y1) & (rows < y2), (columns >= x1) & (columns < x2)
    return (inside_y[..., :, None] & inside_x[..., None, :]).to(torch.uint8)


def with_reduced_masks(batch: Batch, sizes: tuple[tuple[int, int], ...]) -> Batch:
    """The batch with the bitmaps at fixed sizes that YOLACT learns from, in place of the full ones."""
    height, width = batch["images"].shape[-2:]
    kept = {name: value for name, value in batch.items() if name != "mask_bitmaps"}
    for h, w in sizes:
        scale = torch.tensor([w / width, h / height] * 2)
        kept[f"mask_bitmaps_{h}x{w}"] = _filled((batch["boxes"] * scale).round(), h, w)
    return kept


def as_torchvision(batch: Batch) -> tuple[list[Tensor], list[Batch]]:
    """Images and targets as torchvision's detectors take them, ready on the same device."""
    images = [image.float() / 255 for image in batch["images"]]
    targets = [
        {"boxes": boxes, "labels": labels + 1, "masks": masks}
        for boxes, labels, masks in zip(batch["boxes"], batch["labels"], batch["mask_bitmaps"], strict=True)
    ]
    return images, targets
