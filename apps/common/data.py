"""From the recipe's data section to det_coco's loaders."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from apps.common.config import DataConfig, Recipe
from det_coco import (
    Augmentation,
    Batch,
    BatchShape,
    CocoIndex,
    Loader,
    Resize,
    check_same_categories,
    default_buckets,
    default_splits,
    eval_loader,
    load_split,
    synthetic_dataset,
    train_loader,
)


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The two halves of a data set, categories checked to be the same."""

    root: Path
    train: CocoIndex
    val: CocoIndex


def data_root(data: Path | None) -> Path:
    """The folder that `--data` names, or the embedded data set, made on first use in the user's cache."""
    return synthetic_dataset() if data is None else data


def open_splits(data: Path | None, config: DataConfig) -> Splits:
    """Index the training and the held-out split.

    Raises:
        DataError: anything wrong with the folder, the annotation files or their categories.
    """
    root = data_root(data)
    names = (config.train_split, config.val_split)
    if None in names:
        names = tuple(given or found for given, found in zip(names, default_splits(root), strict=True))
    train, val = (load_split(root, str(name)) for name in names)
    check_same_categories(train, val)
    return Splits(root=root, train=train, val=val)


def with_buckets(recipe: Recipe) -> Recipe:
    """The recipe with its bucket shapes spelt out: by default one per orientation that hold every resized image."""
    if recipe.data.buckets:
        return recipe
    largest = max(*recipe.data.train_sizes, recipe.data.test_size)
    resize = Resize(shortest=(largest,), longest=recipe.data.max_size, rule=recipe.data.rounding)
    return dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, buckets=default_buckets(resize)))


def batch_shape(recipe: Recipe) -> BatchShape:
    """The static shapes of the recipe's batches."""
    mask, data = recipe.detector.mask, with_buckets(recipe).data
    return BatchShape(
        buckets=data.buckets,
        masks="none" if mask is None else "bitmaps" if mask.target == "bitmap" else "polygons",
        max_instances=data.max_instances,
        max_edges=data.max_edges,
        max_polygons=data.max_polygons,
        drop_excess=data.drop_excess,
    )


def training_batches(recipe: Recipe, index: CocoIndex, start: int, *, pin_memory: bool) -> Iterator[Batch]:
    """Batches `start`, `start` + 1, ... of the recipe's training."""
    data = recipe.data
    loader = train_loader(
        index,
        augmentation=Augmentation(
            resize=Resize(shortest=data.train_sizes, longest=data.max_size, rule=data.rounding),
            flip=data.flip,
            legacy=recipe.detector.offset == 1,
        ),
        shape=batch_shape(recipe),
        batch_size=data.batch,
        seed=recipe.train.seed,
        start_batch=start,
        workers=data.workers,
        pin_memory=pin_memory,
        filter_empty=data.filter_empty,
    )
    return iter(loader)


def test_resize(config: DataConfig) -> Resize:
    """The resize of evaluation and prediction."""
    return Resize(shortest=(config.test_size,), longest=config.max_size, rule=config.rounding)


def evaluation_loader(recipe: Recipe, index: CocoIndex, *, batch: int | None = None) -> Loader:
    """Every image of a split once, at the recipe's test size."""
    data = recipe.data
    return eval_loader(
        index,
        resize=test_resize(data),
        shape=dataclasses.replace(batch_shape(recipe), masks="none"),
        batch_size=min(batch or data.batch, len(index)),
        workers=data.workers,
    )
