"""From image positions to static batches."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from det_coco.annotated import Annotated
from det_coco.annotations import CocoIndex
from det_coco.augment.painting import sample_of
from det_coco.augment.scene import Scene
from det_coco.batches import Batch, BatchShape, Sample, make_batch
from det_coco.errors import DataError
from det_coco.mask_codec import ImageEdges
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

    Attributes:
        partners: int64 `[P]`, images that augmentation may join with others; all, unless set.
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
        self.partners = np.arange(len(index))

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
        random = None if epoch is None else np.random.default_rng([self.seed, epoch, position])
        scene = self.augmentation(self._scene(position), random)
        return sample_of(scene, dtype=self.augmentation.dtype, ground_truth=self.ground_truth)

    def _scene(self, position: int) -> Scene:
        """One image as it is, with its objects in use."""
        picture = Annotated.of(self.index, position, self.selection.of(position))
        return Scene.of(picture, int(self.index.image_ids[position]), self.shape, self._another)

    def _another(self, random: np.random.Generator) -> Scene:
        """Draw one of the images that others may be joined with."""
        return self._scene(int(self.partners[int(random.integers(len(self.partners)))]))

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
        nothing = Sample(
            image=torch.zeros((3, *smallest), dtype=self.augmentation.dtype),
            image_id=-1,
            scale=(1.0, 1.0),
            boxes=np.zeros((0, 4), dtype=np.float32),
            labels=none,
            crowd=np.zeros(0, dtype=bool),
            edges=ImageEdges(edges=np.zeros((0, 4), dtype=np.float32), polygon_edges=none, instance_polygons=none),
            bitmaps={},
            keypoints=np.zeros((0, self.shape.keypoints, 3), dtype=np.float32),
        )
        return make_batch([nothing], self.shape, self.batch_size, ground_truth=self.ground_truth)
