"""The splits of a data set: where they are in whatever layout it came, and which one is for what."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from det_coco import formats
from det_coco._coco_splits import Split, coco_split, coco_splits, refusal
from det_coco.annotations import CocoIndex
from det_coco.errors import DataError
from det_coco.written_split import SplitSource, written_parts

__all__ = ["Split", "SplitSource", "default_split", "default_splits", "find_splits", "load_split"]

Role = Literal["train", "val"]
# In the order in which they are taken; a year, or more after the word, may follow.
_ROLES: dict[Role, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "minival", "eval", "dev", "test", "testing"),
}


def find_splits(path: str | Path, *, keypoints: bool = False) -> dict[str, SplitSource]:
    """Find the splits of a data set, whatever tool wrote it.

    Of a folder, annotation files in COCO's JSON are taken from `annotations/`, else from beside the pictures' folders,
    else from folders of the splits (`train/`, `valid/`). A split's name is what follows `instances_` in the file's
    name, or a word such as `val2017` in it, or that of its folder; its pictures are looked for by their names.

    Args:
        path: the folder, one annotation file, or a split that `write_split` wrote.
        keypoints: take `person_keypoints_<split>.json` where there is one, as COCO 2017 has it.

    Returns:
        split name -> where it is, by name.

    Raises:
        DataError: the path does not exist, or nothing there is a data set; files that look like one are named.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"The data set {path} does not exist.")
    written = written_parts(path, lambda data: find_splits(data, keypoints=keypoints)) if path.is_file() else None
    if written:
        return dict(written)
    # A file is of one format. A folder may hold several, and looking for others takes long among many pictures.
    other = formats.find(path) if path.is_file() else None
    found = coco_splits(path, keypoints=keypoints) if other is None else None
    if found:
        return dict(found)
    other = other or formats.find(path)
    if other is not None:
        return dict(other.splits(path))
    if path.is_file() and path.suffix.lower() == ".json":
        split = coco_split(path)  # whose loading says what is wrong with it
        return {split.name: split}
    raise refusal(path)


def default_split(splits: Mapping[str, SplitSource], role: Role) -> str | None:
    """Choose the split to train or to evaluate on by its name.

    Args:
        splits: as `find_splits` gives them.
        role: `train`, or `val` for the one to evaluate on.

    Returns:
        the COCO 2017 name (train2017, val2017), else the plain word (train; val, valid, validation, ..., test), else a
        name that begins with it; the only split where it is the only one; None where no name says it.
    """
    names = [name for name, source in splits.items() if not _is_without_truth(source)]
    for word in _ROLES[role]:
        mine = [name for name in names if re.match(rf"{word}(?![a-z])", name.lower())]
        if mine:
            return min(mine, key=lambda name: (name != f"{word}2017", name.lower() != word, name))
    return next(iter(splits)) if len(splits) == 1 else None


def default_splits(root: str | Path, *, keypoints: bool = False) -> tuple[str, str]:
    """Name the splits to train and to evaluate on, each by its own default.

    Args:
        root: as for `find_splits`.
        keypoints: as for `find_splits`.

    Returns:
        (train, val).

    Raises:
        DataError: there is none for one of them, or one alone for both; lists the splits that are.
    """
    splits = find_splits(root, keypoints=keypoints)
    train, val = default_split(splits, "train"), default_split(splits, "val")
    if train is None or val is None or train == val:
        raise no_default(root, splits, "train" if train is None else "val", "Name the splits to use.")
    return train, val


def no_default(root: str | Path, splits: Iterable[str], role: Role, remedy: str) -> DataError:
    """Say that no name of a split tells which one to take.

    Args:
        root: the data set.
        splits: names of its splits.
        role: what it is wanted for.
        remedy: a sentence that says what to do.

    Returns:
        the error.
    """
    purpose = "train" if role == "train" else "evaluate"
    return DataError(
        f"{root} has no split to {purpose} on by its name ({', '.join((f'{role}2017', *_ROLES[role]))}); it has: "
        f"{', '.join(splits)}. {remedy}"
    )


def load_split(
    root: str | Path, split: str, *, keypoints: bool = False, exif: bool = True, **options: bool
) -> CocoIndex:
    """Load one split of a data set.

    Args:
        root: as for `find_splits`.
        split: the split's name.
        keypoints: as for `find_splits`.
        exif: False reads pictures as they are stored, whatever their EXIF orientation says.
        **options: passed on to `CocoIndex.load`.

    Returns:
        its index.

    Raises:
        DataError: there is no such split (lists those there are), or its content is wrong.
    """
    splits = find_splits(root, keypoints=keypoints)
    if split not in splits:
        raise DataError(f"{root} has no split '{split}' (it has: {', '.join(splits)}).")
    return replace(splits[split].load(**options), exif=exif)


def _is_without_truth(source: SplitSource) -> bool:
    """Whether a split is known to come without annotations, as COCO's test-dev."""
    return isinstance(source, Split) and source.annotation_file.name.startswith("image_info_")
