"""What `--data` and the options beside it name: the splits to train and to evaluate on."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from apps.common.config import LoadingConfig, Recipe
from apps.common.printing import say
from det_coco import (
    CocoIndex,
    DataError,
    HeldOut,
    check_same_categories,
    default_split,
    find_splits,
    hold_out,
    synthetic_dataset,
    write_split,
)
from det_coco.layout import SplitSource, no_default
from det_engine import RunDirectory, distributed
from det_engine.cli import UsageError
from det_models import Weights
from det_models.categories import reported

SPLIT_FILE = "split.json"
"""Where a run keeps which images were held out, if it chose them itself."""


@dataclass(frozen=True, kw_only=True)
class _Place:
    """A split where it was found.

    Attributes:
        root: the folder or file that has it.
        name: its name there.
        source: what reads it.
    """

    root: Path
    name: str
    source: SplitSource


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The two halves of a data set, categories checked to be the same."""

    root: Path
    """What the user named."""
    train: CocoIndex
    val: CocoIndex
    whole: _Place | None = None
    """What both halves were made of, where there was one split alone."""
    rule: str = ""
    """How they were told apart then."""

    def __str__(self) -> str:
        train, val = counts(self.train), counts(self.val)
        classes, place = _counted(self.train.num_classes, "class"), place_of(self.train, self.root)
        if self.whole is None:
            train, val = f"{train} to train on ({place})", f"{val} held out ({place_of(self.val, self.root)})"
            return f"Data: {self.root}: {classes}; {train}; {val}."
        val = f"{val} held out, chosen {self.rule}, kept in {SPLIT_FILE}"
        return f"Data: {self.root}: {classes} ({place}); {train} to train on; {val}."

    def write_down(self, run: RunDirectory) -> None:
        """Keep which images were held out in the run's directory, as a data set that `--data` takes."""
        if self.whole is not None:
            held = HeldOut(train=self.train, val=self.val, rule=self.rule)
            write_split(run.path / SPLIT_FILE, held, self.whole.root, self.whole.name)


def data_root(data: Path | None) -> Path:
    """What `--data` names, or the embedded data set, made on first use in the user's cache."""
    return synthetic_dataset() if data is None else data


def open_splits(data: Path | None, recipe: Recipe) -> Splits:
    """Index the training and the held-out split, with what the recipe's detector learns from.

    Raises:
        DataError: anything wrong with the folder, the annotation files or their categories.
        UsageError: nothing says what to train on.
    """
    train, val = _places(data, recipe.data, recipe.model().tasks)
    root = train.root if data is None or recipe.data.train else data
    if val is None:
        held = _hold_out(replace(train.source.load(), exif=recipe.data.exif))
        return Splits(root=root, train=held.train, val=held.val, whole=train, rule=held.rule)
    halves = (replace(place.source.load(), exif=recipe.data.exif) for place in (train, val))
    splits = Splits(root=root, train=next(halves), val=next(halves))
    check_same_categories(splits.train, splits.val)
    return splits


def _hold_out(index: CocoIndex) -> HeldOut:
    try:
        return hold_out(index)
    except DataError as error:
        raise DataError(f"{error} The option is --data.val.") from error


def open_split(data: Path | None, split: str | None, weights: Weights) -> CocoIndex:
    """Index the split that a detector is evaluated on; it may be without truth.

    Args:
        data: `--data`; None: what the detector was trained with.
        split: `--split`; None: the held-out one.
        weights: the detector.

    Raises:
        DataError: anything wrong with the data, or the run's own are not there any more.
        UsageError: nothing says what to evaluate on.
    """
    tasks = weights.network().tasks
    if data is None and split is None:
        run = weights.path.parent.parent
        index = held_out_of_run(run, weights.description, weights.path, tasks)
    else:
        root = _of_run(weights.description, weights.path)[0] if data is None else data
        splits = find_splits(root, **annotations_for(tasks))
        place = _place(root, splits, split, "val", "--split")
        if place is None:
            raise no_default(root, splits, "val", "Name the one to evaluate on: --split.")
        index = place.source.load(require_objects=False)
    say(f"Data: {counts(index)} ({place_of(index, data)}).")
    if not index.categories:  # as files without truth may have it
        index = replace(index, categories=dict(sorted(reported(weights.categories).items())))
    return index


def counts(index: CocoIndex) -> str:
    """How many images and objects a split has, and what of them neither is learnt nor has to be found."""
    said = {remark.kind: remark.annotation_ids for remark in index.remarks}
    crowd = index.annotation_ids[index.crowd]
    ignored = int(np.isin(crowd, said.get("object_ignored", ())).sum())
    dropped = len(said.get("box_dropped", ()))
    parts = [_counted(len(index), "image"), _counted(index.num_instances - len(crowd), "object")]
    parts += [_counted(len(crowd) - ignored, "crowd region")] if len(crowd) > ignored else []
    parts += [f"{count:,} {what}" for count, what in ((ignored, "ignored"), (dropped, "dropped")) if count]
    return ", ".join(parts)


def place_of(index: CocoIndex, root: Path | None) -> str:
    """Where a split's annotations and pictures are, relative to the data set where they lie in it."""
    file, folder = index.annotation_file, index.image_folder
    pictures = "beside it" if folder == file.parent else f"in {_relative(folder, root)}"
    return f"{_relative(file, root)}, pictures {pictures}"


def _counted(count: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"


def _relative(path: Path, root: Path | None) -> str:
    """The path as seen from the data set, or else from here, where it lies in one of them."""
    root = root.parent if root is not None and root.is_file() else root
    within = next((place for place in (root, Path.cwd()) if place and path.is_relative_to(place)), None)
    return str(path if within is None else path.relative_to(within))


def annotations_for(tasks: Iterable[str]) -> dict[str, bool]:
    """Options of det_coco that find the annotations a detector learns from.

    Args:
        tasks: what it finds.
    """
    return {"keypoints": "keypoints" in tasks}


def _places(data: Path | None, config: LoadingConfig, tasks: Iterable[str]) -> tuple[_Place, _Place | None]:
    """The splits to train and to evaluate on; None where images have to be held out of the first."""
    if data is None and config.val is not None and config.train is None:
        raise UsageError("--data.val names what to evaluate on, but nothing names what to train on. Add --data.train.")
    train_root = data_root(data) if config.train is None else Path(config.train)
    val_root = Path(config.val) if config.val is not None else data or train_root
    train_splits = find_splits(train_root, **annotations_for(tasks))
    train = _place(train_root, train_splits, config.train_split, "train", "--data.train-split")
    if train is None:
        raise no_default(train_root, train_splits, "train", "Name the one to use: --data.train-split.")
    val_splits = train_splits if val_root == train_root else find_splits(val_root, **annotations_for(tasks))
    val = _place(val_root, val_splits, config.val_split, "val", "--data.val-split")
    if val is None and config.val is not None:
        raise no_default(val_root, val_splits, "val", "Name the one to use: --data.val-split.")
    given = config.val is not None or config.val_split is not None
    return train, val if given or (val and (val.root, val.name) != (train.root, train.name)) else None


def _place(
    root: Path, splits: Mapping[str, SplitSource], name: str | None, role: Literal["train", "val"], option: str
) -> _Place | None:
    """The split of that name, or by default the one for that role."""
    if name is not None and name not in splits:
        raise DataError(f"{root} has no split '{name}' (it has: {', '.join(splits)}). Choose with {option}.")
    chosen = default_split(splits, role) if name is None else name
    return None if chosen is None else _Place(root=root, name=chosen, source=splits[chosen])


def held_out_of_run(run: Path, description: Mapping[str, Any], named: Path, tasks: Iterable[str]) -> CocoIndex:
    """Index the held-out split of a run.

    Args:
        run: its folder.
        description: what it says of itself.
        named: the file that says so, for messages.
        tasks: what the detector finds.

    Raises:
        DataError: the run's data are not there any more.
        UsageError: the run does not say what it was trained with.
    """
    written = run / SPLIT_FILE
    if written.is_file():
        splits = find_splits(written, **annotations_for(tasks))
        if "val" not in splits:
            raise DataError(f"{written}, which says which images were held out, is damaged. Name the data by --data.")
        return splits["val"].load()
    root, config = _of_run(description, named)
    try:
        train, val = _places(root, config, tasks)
        return hold_out(train.source.load()).val if val is None else val.source.load()
    except DataError as error:
        raise DataError(f"{error} It is what {named} was trained with; --data names other data.") from error


def _of_run(description: Mapping[str, Any], named: Path) -> tuple[Path, LoadingConfig]:
    """What a run was trained with."""
    names = ("train", "val", "train_split", "val_split")
    try:
        data = description["data"]
        chosen = {name: description["recipe"]["data"].get(name) for name in names}
        if not all(value is None or isinstance(value, str) for value in (data, *chosen.values())):
            raise TypeError
    except (LookupError, TypeError, AttributeError):
        raise UsageError(
            f"{named} does not say what it was trained with. Name the data to evaluate on: --data."
        ) from None
    return data_root(None if data is None else Path(data)), LoadingConfig(**chosen)


def surroundings(splits: Splits) -> dict[str, str]:
    """What the numbers of a training depend on beside the training annotations: a change of it is said at a resume."""
    with distributed.main_first():
        pictures = {name: _of_files(index) for name, index in (("training", splits.train), ("held-out", splits.val))}
    found = {f"{name} pictures (sizes or dates)": digest for name, digest in pictures.items()}
    return distributed.broadcast_object({"held-out annotations": splits.val.fingerprint, **found})


def _of_files(index: CocoIndex) -> str:
    """A digest of the sizes and dates of a split's pictures; of its main process, for which the others wait."""
    digest = hashlib.blake2b(digest_size=16)
    for position in range(len(index)) if distributed.is_main() else ():
        try:
            status = index.path(position).stat()
            digest.update(f"{status.st_size} {status.st_mtime_ns} ".encode())
        except OSError:
            digest.update(b"missing ")
    return digest.hexdigest()
