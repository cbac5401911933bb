"""Which images make batch k: a pure function of the seed and k."""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Literal, Protocol

import numpy as np

from det_coco.annotations import CocoIndex
from det_coco.batches import BatchShape
from det_coco.dataset import BatchKey
from det_coco.errors import DataError

Grouping = Literal["orientation", "bucket", "none"]

# Separates the two uses of one seed.
_PERMUTATION, _INTERLEAVING = 1, 2


class Sized(Protocol):
    """What says which sizes it makes of a picture."""

    def output_sizes(self, height: int, width: int) -> Sequence[tuple[int, int]]:
        """All sizes (height, width) that it may make of a picture."""
        ...


class TrainSampler:
    """Endless shuffled batches, each from one group of images, without a state to save.

    Every group (landscape, portrait) is an endless row of permutations, a new one each epoch, cut into global batches
    of `batch_size * world_size` images; the processes take consecutive parts. Groups take turns in proportion to their
    sizes: over as many batches as there are images each group is drawn from exactly as often as it has images, and
    on the way it is never more than about a batch early or late. Batch k follows from the seed and k alone, so a
    resumed run starts at any k, and the global batches do not depend on how many processes share them.

    With factors an epoch is as long as they add up to. Each image comes its factor's whole part of times or once more,
    so drawn that its mean is the factor, each time with another augmentation.

    Args:
        positions: images to draw from.
        groups: group number of each of them.
        batch_size: images per process and batch.
        seed: seed of the shuffling.
        rank: this process.
        world_size: number of processes.
        start: number of the first batch of an iteration.
        factors: `[I]`, at least 1, how often each of the I images is used in an epoch, such as `repeat_factors`; None:
            once.
    """

    def __init__(
        self,
        positions: np.ndarray,
        groups: np.ndarray,
        *,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        start: int = 0,
        factors: np.ndarray | None = None,
    ) -> None:
        if len(positions) == 0:
            raise DataError("There is no image to train on.")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be between 0 and world_size - 1 = {world_size - 1}, got {rank}.")
        self.batch_size, self.seed, self.rank, self.world_size, self.start = batch_size, seed, rank, world_size, start
        self.num_images = len(positions)
        self._members = [np.asarray(positions)[groups == g] for g in np.unique(groups)]
        self._factors = None if factors is None else [np.asarray(factors)[groups == g] for g in np.unique(groups)]
        self._lengths = [len(members) for members in self._members]
        if self._factors is not None:
            self._lengths = [round(float(own.sum())) for own in self._factors]
        self._period = sum(self._lengths)
        self._permutation = lru_cache(maxsize=4 * len(self._members))(self._draw_permutation)
        self._turns = lru_cache(maxsize=2)(self._draw_turns)

    @property
    def batches_per_epoch(self) -> float:
        """Number of batches that use as many images as there are."""
        return self._period / (self.batch_size * self.world_size)

    def batch(self, number: int) -> BatchKey:
        """Choose the images of this process's part of a global batch.

        Args:
            number: number of the batch, from 0.

        Returns:
            `batch_size` images, and how often each has been used before.
        """
        period, step = divmod(number, self._period)
        groups, turns = self._turns(period)
        group = int(groups[step])
        members = self._lengths[group]
        # Each period takes as many batches from a group as it has images.
        first = (period * members + int(turns[step])) * self.batch_size * self.world_size + self.rank * self.batch_size
        epochs, places = np.divmod(np.arange(first, first + self.batch_size), members)
        chosen = [self._permutation(group, int(e))[:, p] for e, p in zip(epochs, places, strict=True)]
        return BatchKey(
            number=number, positions=tuple(int(c[0]) for c in chosen), epochs=tuple(int(c[1]) for c in chosen)
        )

    def __iter__(self) -> Iterator[BatchKey]:
        number = self.start
        while True:
            yield self.batch(number)
            number += 1

    def __getstate__(self) -> dict[str, object]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_permutation", "_turns")}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._permutation = lru_cache(maxsize=4 * len(self._members))(self._draw_permutation)
        self._turns = lru_cache(maxsize=2)(self._draw_turns)

    def _draw_permutation(self, group: int, epoch: int) -> np.ndarray:
        """Images of an epoch in their order, and how often each has been used before: `[2, L]`, L uses."""
        random = np.random.default_rng([self.seed, _PERMUTATION, group, epoch])
        members = self._members[group]
        if self._factors is None:
            order = random.permutation(members)
            return np.stack((order, np.full(len(order), epoch)))
        order = random.permutation(len(members))
        # Systematic sampling: the sums of the factors are rounded, from a random place on, so that the whole is exact.
        sums = np.cumsum(self._factors[group][order])
        sums *= self._lengths[group] / sums[-1]
        counts = np.diff(np.floor(sums + random.random()), prepend=0).astype(np.int64)
        counts[-1] += self._lengths[group] - counts.sum()
        most = math.ceil(self._factors[group].max()) + 1
        uses = epoch * most + np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return random.permutation(np.stack((np.repeat(members[order], counts), uses)), axis=1)

    def _draw_turns(self, period: int) -> tuple[np.ndarray, np.ndarray]:
        """Order the batches of a period.

        Batch j of a group of n comes at time (j + u) / n, u uniform: random, yet evenly spread.

        Returns:
            group of each step, and which batch of that group it is within the period.
        """
        random = np.random.default_rng([self.seed, _INTERLEAVING, period])
        sizes = self._lengths
        times = np.concatenate([(np.arange(n) + random.random(n)) / n for n in sizes])
        order = np.argsort(times, kind="stable")
        groups = np.repeat(np.arange(len(sizes)), sizes)[order]
        turns = np.concatenate([np.arange(n) for n in sizes])[order]
        return groups, turns


def repeat_factors(index: CocoIndex, positions: np.ndarray, threshold: float) -> np.ndarray:
    """Compute how often images are to be used in an epoch, those with rare classes more often.

    Source: Gupta et al., "LVIS", 2019: max(1, sqrt(threshold / f)) of the rarest class in the image, f being the share
    of images with that class; detectron2's `RepeatFactorTrainingSampler`.

    Args:
        index: the data.
        positions: integers `[I]`, the images in use.
        threshold: share of images below which a class is repeated; 0.001 in LVIS.

    Returns:
        float64 `[I]`, at least 1.
    """
    pairs = _pairs(index)
    pairs = pairs[np.isin(pairs[:, 0], positions)]
    share = np.bincount(pairs[:, 1], minlength=index.num_classes) / len(positions)
    factors = np.sqrt(threshold / np.maximum(share, 1e-12))  # [C]; classes without an image are in no pair
    found = np.ones(len(index))
    np.maximum.at(found, pairs[:, 0], factors[pairs[:, 1]])
    return found[positions]


def class_counts(index: CocoIndex) -> tuple[list[int], list[int]]:
    """Count the objects of each class, and the images with it, without crowd regions: two lists of C numbers."""
    objects = np.bincount(index.labels[~index.crowd], minlength=index.num_classes)
    return objects.tolist(), np.bincount(_pairs(index)[:, 1], minlength=index.num_classes).tolist()


def _pairs(index: CocoIndex) -> np.ndarray:
    """Each image with each of its classes, crowd regions left out: int64 `[pairs, 2]`."""
    image = np.repeat(np.arange(len(index)), np.diff(index.image_instances))
    both = np.stack((image, index.labels), axis=1)[~index.crowd]
    return np.unique(both, axis=0)


class EvalSampler:
    """Every image once, in batches from one group each; every process gets equally many batches.

    Args:
        positions: images to evaluate on.
        groups: group number of each of them.
        batch_size: images per process and batch; the last batch of a group may have fewer.
        rank: this process.
        world_size: number of processes; those that run out get keys without images.
    """

    def __init__(
        self, positions: np.ndarray, groups: np.ndarray, *, batch_size: int, rank: int = 0, world_size: int = 1
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be between 0 and world_size - 1 = {world_size - 1}, got {rank}.")
        self.num_images = len(positions)
        batches: list[tuple[int, ...]] = []
        for group in np.unique(groups):
            members = [int(p) for p in np.asarray(positions)[groups == group]]
            batches += [tuple(members[i : i + batch_size]) for i in range(0, len(members), batch_size)]
        batches += [()] * (-len(batches) % world_size)
        self._keys = [BatchKey(number=n, positions=b) for n, b in enumerate(batches[rank::world_size])]

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[BatchKey]:
        return iter(self._keys)


def group_images(
    index: CocoIndex, positions: Sequence[int] | np.ndarray, resize: Sized, shape: BatchShape, grouping: Grouping
) -> np.ndarray:
    """Sort images into groups whose members can share a batch, and check that every such batch has a bucket.

    Args:
        index: the data.
        positions: integers `[I]`, positions in the index of the I images in use.
        resize: how they are resized: a `Resize`, or an augmentation.
        shape: has the buckets.
        grouping: by orientation (wider than high, or not: the reference systems' aspect grouping), by the size that the
            image is always padded to, or not at all.

    Returns:
        int64 `[I]`, group number of each image.

    Raises:
        DataError: images that may meet in a batch have no common bucket; names one of them, or the grouping.
        ValueError: the grouping is unknown.
    """
    positions = np.asarray(positions, dtype=np.int64)
    sizes = np.stack((index.heights[positions], index.widths[positions]), axis=1)  # [images, 2]
    unique, first, inverse = np.unique(sizes, axis=0, return_index=True, return_inverse=True)
    # [different sizes, 2]: the greatest height and the greatest width that are drawn for each.
    largest = np.array([_largest(resize, int(h), int(w)) for h, w in unique], dtype=np.int64).reshape(-1, 2)
    names = [f"Image {index.image_ids[positions[i]]} ({index.file_names[positions[i]]}): " for i in first]
    buckets = []
    for (height, width), name in zip(largest, names, strict=True):
        try:
            buckets.append(shape.bucket(int(height), int(width)))
        except DataError as error:
            raise DataError(name + str(error)) from None
    if grouping == "orientation":
        group = (unique[:, 1] > unique[:, 0]).astype(np.int64)
    elif grouping == "bucket":
        order = {bucket: n for n, bucket in enumerate(dict.fromkeys((*shape.buckets, *buckets)))}
        group = np.array([order[bucket] for bucket in buckets], dtype=np.int64)
    elif grouping == "none":
        group = np.zeros(len(unique), dtype=np.int64)
    else:
        raise ValueError(f"grouping must be orientation, bucket or none, got {grouping!r}.")
    for g in np.unique(group):
        height, width = largest[group == g].max(axis=0)
        try:
            shape.bucket(int(height), int(width))
        except DataError as error:
            raise DataError(f"Images grouped by {grouping} may meet in a batch. {error}") from None
    return group[inverse.reshape(-1)]


def _largest(resize: Sized, height: int, width: int) -> tuple[int, int]:
    drawn = resize.output_sizes(height, width)
    return max(size[0] for size in drawn), max(size[1] for size in drawn)
