"""From image positions to static batches."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from det_coco.annotations import CocoIndex
from det_coco.batches import Batch, BatchShape, Sample, make_batch
from det_coco.errors import DataError
from det_coco.mask_codec import image_bitmaps, image_edges
from det_coco.selection import Selection, select_instances
from det_coco.transforms import Transform


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchKey:
    """The images that make a batch.

    Attributes:
        number: the batch's number, from 0.
        positions: images of the index.
        epochs: how often each image has been used before, which seeds its augmentation; None in evaluation.
    """

    number: int
    positions: tuple[int, ...]
    epochs: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """A data error on its way out of a worker process, where an exception would arrive wrapped in a traceback."""

    message: str


class BatchDataset(Dataset[Batch | Failure]):
    """Data set of whole batches, one per key; picklable, and the same in every process.

    Args:
        index: the data.
        augmentation: what is done to each image.
        shape: shapes of the batches.
        batch_size: images per batch.
        seed: with the epoch and the image it determines an augmentation.
        ground_truth: include ground truth.
        selection: instances in use; by default chosen (and checked) here.
    """

    def __init__(
        self,
        index: CocoIndex,
        augmentation: Transform,
        shape: BatchShape,
        *,
        batch_size: int,
        seed: int = 0,
        ground_truth: bool = True,
        selection: Selection | None = None,
    ) -> None:
        self.index = index
        self.augmentation = augmentation
        self.shape = shape
        self.batch_size = batch_size
        self.seed = seed
        self.ground_truth = ground_truth
        if not ground_truth:
            selection = Selection(rows=np.zeros(0, dtype=np.int64), image_rows=np.zeros(len(index) + 1, dtype=np.int64))
        self.selection = selection or select_instances(index, shape, legacy=augmentation.legacy)

    def sample(self, position: int, epoch: int | None = None) -> Sample:
        """Load one image with its ground truth.

        Args:
            position: the image.
            epoch: seeds the augmentation; None for none.

        Returns:
            the sample, depending on nothing but the arguments, the seed and the data.

        Raises:
            DataError: the picture cannot be read or has another size than the annotation file says.
        """
        index = self.index
        height, width = int(index.heights[position]), int(index.widths[position])
        random = None if epoch is None else np.random.default_rng([self.seed, epoch, position])
        rows = self.selection.of(position)
        view = self.augmentation.draw(height, width, random, index.boxes[rows], index.crowd[rows])
        rows = rows[view.keep(index.boxes[rows])]
        masks = self.shape.masks if self.ground_truth else "none"
        sizes = self.shape.bitmap_sizes
        skeleton = index.skeleton if self.shape.keypoints and self.ground_truth else None
        return Sample(
            image=view.image(index.image(position)),
            image_id=int(index.image_ids[position]),
            scale=(view.scale_y, view.scale_x),
            boxes=view.boxes(index.boxes[rows]),
            labels=index.labels[rows],
            crowd=index.crowd[rows],
            edges=image_edges(index, rows, position, view) if masks == "polygons" else None,
            bitmaps=image_bitmaps(index, rows, position, view, sizes) if masks == "bitmaps" else None,
            keypoints=view.keypoints(index.keypoints[rows], skeleton.flip_indices) if skeleton else None,
        )

    def __getitem__(self, index: BatchKey) -> Batch | Failure:
        epochs = index.epochs or (None,) * len(index.positions)
        try:
            samples = [self.sample(p, e) for p, e in zip(index.positions, epochs, strict=True)]
            if not samples:
                return self._padding()
            # Slots without an image keep the shape of a batch, which is free where the padding is tight.
            slots = None if self.shape.tight else self.batch_size
            return make_batch(samples, self.shape, slots, ground_truth=self.ground_truth)
        except DataError as error:
            return Failure(str(error))

    def _padding(self) -> Batch:
        """Make a batch without images, for the process that has one batch less than the others."""
        smallest = min(self.shape.buckets, key=lambda bucket: bucket[0] * bucket[1])
        none = np.zeros(0, dtype=np.int64)
        boxes, crowd = np.zeros((0, 4), dtype=np.float32), np.zeros(0, dtype=bool)
        view = self.augmentation.draw(1, 1, None, boxes, crowd)
        nothing = Sample(
            image=torch.zeros((3, *smallest), dtype=self.augmentation.resize.dtype),
            image_id=-1,
            scale=(1.0, 1.0),
            boxes=boxes,
            labels=none,
            crowd=crowd,
            edges=image_edges(self.index, none, 0, view),
            bitmaps={},
            keypoints=np.zeros((0, self.shape.keypoints, 3), dtype=np.float32),
        )
        return make_batch([nothing], self.shape, self.batch_size, ground_truth=self.ground_truth)
