"""The stored images and ground truth as batches of `det_coco`'s format."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.parity.reference import Reference

Batch = dict[str, Tensor]

SLOTS = 6
"""Instances per image; the images have 4 and 3."""


def images(file: Reference) -> list[Tensor]:
    """uint8 `Tensor[3, h, w]` RGB."""
    return [file.tensor(f"in/image{i}").permute(2, 0, 1) for i in range(2)]


def pad(tensors: list[Tensor], height: int, width: int) -> Tensor:
    """Stack of images, zeros at the right and the bottom."""
    return torch.stack([F.pad(t, (0, width - t.shape[-1], 0, height - t.shape[-2])) for t in tensors])


def plain_batch(file: Reference, height: int = 320, width: int = 448) -> Batch:
    """The images in their own size, masks as polygons."""
    pictures = images(file)
    sizes = torch.tensor([picture.shape[-2:] for picture in pictures], dtype=torch.int32)
    return {
        "images": pad(pictures, height, width),
        "image_sizes": sizes,
        "scales": torch.ones(2, 2),
        **_truth(file, [torch.ones(4)] * 2),
        **_polygons(file),
    }


def with_bitmaps(batch: Batch, file: Reference) -> Batch:
    """Masks as bitmaps too (of images in their own size)."""
    height, width = batch["images"].shape[-2:]
    slots = torch.zeros(2, SLOTS, height, width, dtype=torch.uint8)
    for i, (h, w) in enumerate(batch["image_sizes"].tolist()):
        masks = torch.from_numpy(np.unpackbits(file[f"in/gt_masks_packed{i}"], axis=-1, count=w))
        slots[i, : len(masks), :h, :w] = masks
    return batch | {"mask_bitmaps": slots}


def resized_batch(file: Reference, height: int, width: int, short: int, long: int) -> Batch:
    """The images resized as torchvision's detectors do (floats, sizes rounded down), masks as bitmaps."""
    pictures, bitmaps, scales, sizes = [], [], [], []
    for i, picture in enumerate(images(file)):
        h, w = picture.shape[-2:]
        factor = min(short / min(h, w), long / max(h, w))
        resize = {"scale_factor": factor, "recompute_scale_factor": True}
        enlarged = F.interpolate(picture[None].float(), mode="bilinear", align_corners=False, **resize)[0]
        masks = np.unpackbits(file[f"in/gt_masks_packed{i}"], axis=-1, count=w)
        bitmaps.append(F.interpolate(torch.from_numpy(masks)[None].float(), mode="nearest", **resize)[0].byte())
        pictures.append(enlarged)
        sizes.append(enlarged.shape[-2:])
        scales.append((enlarged.shape[-2] / h, enlarged.shape[-1] / w))
    slots = torch.zeros(2, SLOTS, height, width, dtype=torch.uint8)
    for i, masks in enumerate(bitmaps):
        slots[i, : len(masks), : masks.shape[-2], : masks.shape[-1]] = masks
    return {
        "images": pad(pictures, height, width),
        "image_sizes": torch.tensor(sizes, dtype=torch.int32),
        "scales": torch.tensor(scales),
        "mask_bitmaps": slots,
        **_truth(file, [torch.tensor([x, y, x, y]) for y, x in scales]),
    }


def inclusive(batch: Batch) -> Batch:
    """Truth whose stored x2, y2 are the last pixels of the object (of images in their own size)."""
    boxes = batch["boxes"].clone()
    boxes[..., 2:] += 1
    return batch | {"boxes": torch.where(batch["valid"][..., None], boxes, 0.0)}


def _truth(file: Reference, factors: list[Tensor]) -> Batch:
    truth = {
        "image_ids": torch.arange(2),
        "boxes": torch.zeros(2, SLOTS, 4),
        "labels": torch.zeros(2, SLOTS, dtype=torch.int64),
        "valid": torch.zeros(2, SLOTS, dtype=torch.bool),
        "crowd": torch.zeros(2, SLOTS, dtype=torch.bool),
    }
    for i, boxes in enumerate(file.pair("in/gt_boxes")):
        truth["boxes"][i, : len(boxes)] = boxes * factors[i]
        truth["labels"][i, : len(boxes)] = file.tensor(f"in/gt_classes{i}")
        truth["valid"][i, : len(boxes)] = True
    return truth


def _polygons(file: Reference, edges: int = 64) -> Batch:
    """One polygon per instance; the edges of an image lie one after another."""
    found = {
        "mask_edges": torch.zeros(2, edges, 4),
        "mask_polygons": torch.zeros(2, SLOTS + 1, dtype=torch.int32),
        "mask_instances": torch.zeros(2, SLOTS + 1, dtype=torch.int32),
    }
    for i, vertices in enumerate(file.pair("in/gt_poly")):
        lengths = [int(length) for length in file[f"in/gt_poly_len{i}"]]
        closed = [torch.cat((part, part.roll(-1, 0)), 1) for part in vertices.split(lengths)]
        found["mask_edges"][i, : len(vertices)] = torch.cat(closed)
        ends = torch.tensor(lengths).cumsum(0)
        found["mask_polygons"][i, 1:] = F.pad(ends, (0, SLOTS - len(ends)), value=int(ends[-1]))
        found["mask_instances"][i, 1:] = torch.arange(1, SLOTS + 1).clamp(max=len(ends))
    return found
