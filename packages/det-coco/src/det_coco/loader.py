"""Loaders: the data set, the sampler and worker processes together."""

import os
import signal
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader

from det_coco.annotations import CocoIndex
from det_coco.batches import Batch, BatchShape
from det_coco.dataset import BatchDataset, Failure
from det_coco.errors import DataError
from det_coco.resize import Resize
from det_coco.sampler import EvalSampler, Grouping, TrainSampler, group_images, repeat_factors
from det_coco.transforms import Augmentation, Transform
from det_coco.workers import ended_worker


class Loader:
    """Iterable over static batches; a data error of a worker process is raised here as it was there.

    Attributes:
        dataset: makes the batches.
        sampler: says which images make which batch.
    """

    def __init__(
        self,
        dataset: BatchDataset,
        sampler: TrainSampler | EvalSampler,
        *,
        workers: int = 0,
        pin_memory: bool = False,
        start_method: str | None = None,
    ) -> None:
        self.dataset = dataset
        self.sampler = sampler
        self._loader: DataLoader[Batch | Failure] = DataLoader(
            dataset,
            sampler=sampler,
            batch_size=None,
            num_workers=workers,
            pin_memory=pin_memory,
            persistent_workers=workers > 0 and isinstance(sampler, EvalSampler),
            multiprocessing_context=start_method if workers > 0 else None,
            prefetch_factor=4 if workers > 0 else None,
            worker_init_fn=_start_worker,
        )

    @property
    def batches_per_epoch(self) -> float:
        """Number of batches that use as many images as the data set has; exact in evaluation."""
        return float(len(self.sampler)) if isinstance(self.sampler, EvalSampler) else self.sampler.batches_per_epoch

    @property
    def num_images(self) -> int:
        """Number of images that all processes use together, before padding."""
        return self.sampler.num_images

    def __len__(self) -> int:
        """Number of batches of an evaluation.

        Raises:
            TypeError: the loader is endless.
        """
        if isinstance(self.sampler, EvalSampler):
            return len(self.sampler)
        raise TypeError("A training loader is endless, so it has no length.")

    def __iter__(self) -> Iterator[Batch]:
        try:
            for batch in self._loader:
                if isinstance(batch, Failure):
                    raise DataError(batch.message)
                yield batch
        except (RuntimeError, ConnectionError, EOFError) as error:
            ended = ended_worker(error)
            if ended is None:
                raise
            raise ended from error


def train_loader(
    index: CocoIndex,
    *,
    augmentation: Transform,
    shape: BatchShape,
    batch_size: int,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    start_batch: int = 0,
    workers: int = 0,
    pin_memory: bool = False,
    filter_empty: bool = False,
    min_keypoints: int = 0,
    repeat_threshold: float = 0.0,
    grouping: Grouping = "orientation",
    start_method: str | None = None,
) -> Loader:
    """Make the endless loader of a training.

    Everything that could fail for lack of room (instances, mask edges, buckets) is checked here, before the first
    batch. Batch k and its augmentation follow from the seed and k alone, whatever the workers do.

    Args:
        index: the data.
        augmentation: what is done to each image: `Augmentation`, `SSDAugmentation`, or `augment.Compose` of any steps.
        shape: shapes of the batches.
        batch_size: images per process and batch.
        seed: seed of order and augmentation.
        rank: this process.
        world_size: number of processes.
        start_batch: number of the first batch, for a resumed training.
        workers: worker processes; 0 loads in this one.
        pin_memory: put batches into page-locked memory, for copies to an accelerator.
        filter_empty: leave out images in which no object but crowd regions is in use.
        min_keypoints: leave out images with fewer labelled keypoints, counted over all objects in use (1 in detectron2,
            10 in torchvision's references).
        repeat_threshold: share of images below which those of a class are repeated, see `repeat_factors`; 0: none are.
        grouping: which images may share a batch, see `group_images`.
        start_method: how worker processes start ("fork", "spawn", "forkserver"), the platform's default by default.

    Returns:
        the loader.

    Raises:
        DataError: the data does not fit the shapes, or nothing is left to train on.
    """
    dataset = BatchDataset(index, augmentation, shape, batch_size=batch_size, seed=seed)
    positions = np.arange(len(index))
    if filter_empty:
        positions = positions[_count(dataset, ~index.crowd)[positions] > 0]
    if min_keypoints:
        positions = positions[_count(dataset, (index.keypoints[..., 2] > 0).sum(axis=1))[positions] >= min_keypoints]
    if len(positions) == 0:
        few = f" with at least {min_keypoints} labelled keypoints" if min_keypoints else ""
        raise DataError(f"{index.annotation_file} has no image{few} to train on.")
    dataset.partners = positions
    groups = group_images(index, positions, augmentation, shape, grouping)
    sampler = TrainSampler(
        positions,
        groups,
        batch_size=batch_size,
        seed=seed,
        rank=rank,
        world_size=world_size,
        start=start_batch,
        factors=repeat_factors(index, positions, repeat_threshold) if repeat_threshold else None,
    )
    return Loader(dataset, sampler, workers=workers, pin_memory=pin_memory, start_method=start_method)


def eval_loader(
    index: CocoIndex,
    *,
    resize: Resize,
    shape: BatchShape,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
    pin_memory: bool = False,
    ground_truth: bool = False,
    legacy: bool = False,
    limit: int | None = None,
    grouping: Grouping = "orientation",
    start_method: str | None = None,
) -> Loader:
    """Make the loader of an evaluation: each image once, at the last size of `resize`, not flipped.

    Incomplete batches are filled up with images of id -1, unless `shape` is tight. Every process gets equally many.

    Args:
        index: the data.
        resize: the resize.
        shape: shapes of the batches.
        batch_size: images per process and batch.
        rank: this process.
        world_size: number of processes.
        workers: worker processes; 0 loads in this one.
        pin_memory: put batches into page-locked memory.
        ground_truth: include ground truth, for a loss on held-out images.
        legacy: coordinate rule of the ground truth, see `Augmentation`.
        limit: use only this many images, the first ones; None: all.
        grouping: which images may share a batch, see `group_images`.
        start_method: how worker processes start.

    Returns:
        the loader; its length is the number of batches.

    Raises:
        DataError: the data does not fit the shapes.
    """
    augmentation = Augmentation(resize=resize, flip=0.0, legacy=legacy)
    dataset = BatchDataset(index, augmentation, shape, batch_size=batch_size, ground_truth=ground_truth)
    positions = np.arange(len(index) if limit is None else min(limit, len(index)))
    last = Resize(shortest=resize.shortest[-1:], longest=resize.longest, rule=resize.rule)
    groups = group_images(index, positions, last, shape, grouping)
    sampler = EvalSampler(positions, groups, batch_size=batch_size, rank=rank, world_size=world_size)
    return Loader(dataset, sampler, workers=workers, pin_memory=pin_memory, start_method=start_method)


def _count(dataset: BatchDataset, weights: np.ndarray) -> np.ndarray:
    """Sum a number of each instance over the instances in use of each image: `[I]` from `[N]`."""
    index, selection = dataset.index, dataset.selection
    image = np.repeat(np.arange(len(index)), np.diff(selection.image_rows))
    return np.bincount(image, weights[selection.rows], minlength=len(index))


def _start_worker(_: int) -> None:
    # Ctrl-C, and the SIGTERM of a launcher, go to the whole process group; the main process decides what to do about
    # them, and may need batches until it has done it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    torch.set_num_threads(1)
