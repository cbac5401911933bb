"""A sheet of pictures that shows what an augmentation does."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from det_coco.batches import Sample
from det_coco.dataset import BatchDataset
from det_coco.drawn import Drawn, ground_truth_of
from det_coco.pictures import draw


def augmentation_sheet(
    dataset: BatchDataset, positions: Sequence[int], *, draws: int = 4, side: int = 320
) -> Image.Image:
    """Draw images as they are, and beside each what training makes of it in its first epochs, objects included.

    Args:
        dataset: of a training: `train_loader(...).dataset`.
        positions: the images, one a row.
        draws: epochs, one a column.
        side: longer side of each picture, in pixels.

    Returns:
        an RGB picture, the images as they are at the left.
    """
    index = dataset.index
    # Masks as they lie on the picture, whatever form the detector learns them in; the random numbers are the same.
    masks = "none" if dataset.shape.masks == "none" else "bitmaps"
    shown = BatchDataset(
        index,
        dataset.augmentation,
        replace(dataset.shape, masks=masks, bitmap_sizes=()),
        batch_size=1,
        seed=dataset.seed,
        selection=dataset.selection,
    )
    shown.partners = dataset.partners
    limbs = index.skeleton.limbs if index.skeleton else ()
    gap = 6
    sheet = Image.new("RGB", ((draws + 1) * (side + gap) - gap, len(positions) * (side + gap) - gap), "white")
    for row, position in enumerate(positions):
        truth = ground_truth_of(index, int(index.image_ids[position]))
        cells = [(index.image(position), truth)]
        cells += [_drawn(shown.sample(position, epoch), limbs) for epoch in range(draws)]
        for column, (pixels, objects) in enumerate(cells):
            picture = draw(*_scaled(pixels, objects, side), index.categories, min_side=1)
            place = np.array([column, row]) * (side + gap) + (side - np.array(picture.size)) // 2
            sheet.paste(picture, (int(place[0]), int(place[1])))
    return sheet


def _drawn(sample: Sample, limbs: tuple[tuple[int, int], ...]) -> tuple[np.ndarray, Drawn]:
    """Pixels and objects of a sample."""
    pixels = sample.image.round().clamp(0, 255).to(torch.uint8) if sample.image.is_floating_point() else sample.image
    masks = next(iter((sample.bitmaps or {}).values()), None)
    return pixels.permute(1, 2, 0).contiguous().numpy(), Drawn(
        boxes=sample.boxes,
        labels=sample.labels,
        masks=None if masks is None else masks.astype(bool),
        crowd=sample.crowd,
        keypoints=sample.keypoints,
        limbs=limbs,
    )


def _scaled(pixels: np.ndarray, objects: Drawn, side: int) -> tuple[np.ndarray, Drawn]:
    """A picture and its objects with another longer side."""
    height, width = pixels.shape[:2]
    factor = side / max(height, width)
    size = (max(round(width * factor), 1), max(round(height * factor), 1))
    masks = objects.masks
    if isinstance(masks, np.ndarray):
        small = [np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)) for mask in masks]
        masks = np.array(small, dtype=bool).reshape(-1, size[1], size[0])
    keypoints = objects.keypoints
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)), replace(
        objects,
        boxes=objects.boxes * factor,
        masks=masks,
        keypoints=None if keypoints is None else keypoints * np.array([factor, factor, 1]),
    )
