"""From the recipe's data section to det_coco's loaders."""

from collections.abc import Iterator, Sequence

from apps.common.config import Recipe
from det_coco import Batch, BatchShape, CocoIndex, Loader, Resize, eval_loader, train_loader
from det_coco.sampler import Grouping
from det_engine import distributed
from det_models import ModelConfig


def training_batches(recipe: Recipe, index: CocoIndex, start: int, *, pin_memory: bool) -> Iterator[Batch]:
    """This process's part of the batches `start`, `start` + 1, ... of the recipe's training."""
    return iter(training_loader(recipe, index, start, pin_memory=pin_memory))


def training_loader(recipe: Recipe, index: CocoIndex, start: int, *, pin_memory: bool) -> Loader:
    """The loader of those batches."""
    data = recipe.data
    return train_loader(
        index,
        augmentation=recipe.training_transform(),
        shape=recipe.batch_shape(),
        batch_size=distributed.per_process(data.batch),
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        seed=recipe.train.seed,
        start_batch=start,
        workers=data.workers,
        pin_memory=pin_memory,
        filter_empty=data.filter_empty,
        min_keypoints=data.min_keypoints,
        repeat_threshold=data.repeat_threshold,
        grouping=grouping(recipe.test_resize(), recipe.batch_shape().buckets),
    )


def evaluation_loader(model: ModelConfig, index: CocoIndex, *, batch: int, workers: int, tight: bool = False) -> Loader:
    """This process's share of the images of a split, each once, as the model gets them; `tight` as in `BatchShape`."""
    return eval_loader(
        index,
        resize=model.resize,
        shape=BatchShape(buckets=model.buckets, masks="none", tight=tight),
        batch_size=_share(batch, index),
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        workers=workers,
        # Images of one padded size: what is found in one does not depend on the others of its batch.
        grouping="bucket" if tight else grouping(model.resize, model.buckets),
    )


def validation_loader(recipe: Recipe, index: CocoIndex) -> Loader:
    """The same with the truth, for losses on held-out images."""
    data, resize = recipe.data, recipe.test_resize()
    return eval_loader(
        index,
        resize=resize,
        shape=recipe.batch_shape(),
        batch_size=_share(data.batch, index),
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        workers=data.workers,
        ground_truth=True,
        legacy=recipe.training_transform().legacy,
        grouping=grouping(resize, recipe.batch_shape().buckets),
    )


def _share(batch: int, index: CocoIndex) -> int:
    return max(1, min(batch, len(index)) // distributed.world_size())


def grouping(resize: Resize, buckets: Sequence[tuple[int, int]]) -> Grouping:
    """Which images share a batch: those of an orientation, or of a bucket where an orientation has several.

    YOLACT's images have one shape whatever they were.
    """
    if resize.rule == "yolact":
        return "none"
    return "bucket" if len(buckets) > 2 else "orientation"
