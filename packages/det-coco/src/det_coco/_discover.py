"""The COCO annotation files of a folder, whatever tool wrote it: which splits they are, where their pictures may be."""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from det_coco._file_kinds import may_be_annotations
from det_coco.images import picture_suffixes

INSTANCES, KEYPOINTS, IMAGES = "instances", "person_keypoints", "image_info"
_OTHER_TASKS = ("panoptic", "captions", "stuff", "labels")
_FOLDERS = ("annotations", "annotation", "labels")
_PICTURES = ("images", "data", "JPEGImages", "img", "imgs", "image", "pictures", "photos")
_PACKED = (".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".tar", ".7z", ".rar")
_LVIS = re.compile(r"lvis_v\d+(\.\d+)?$")
_WORDS = r"train(?:ing|val)?|val(?:id|idation)?|test(?:ing|[-_]dev)?|(?:mini|e)val|dev|unlabell?ed"
_USES = ("train", "val", "test", "dev", "unlab")
_SPLIT = re.compile(rf"(?<![A-Za-z])((?:{_WORDS})\d*)(?![A-Za-z0-9])", re.IGNORECASE)


def annotation_files(root: Path) -> list[Path]:
    """Find the annotation files of a data set.

    They are looked for in `annotations/`, then beside the folders of pictures, then in folders of their own (`train/`,
    `valid/`, with the pictures or in `annotations/`); the first place that has some is taken.

    Args:
        root: the data set.

    Returns:
        files that may be COCO annotation files, by name.
    """
    inside = sorted(path for path in root.iterdir() if path.is_dir())
    named = [folder for folder in inside if folder.name.lower() in _FOLDERS]
    others = [folder for folder in inside if folder not in named]
    deeper = [*others, *(folder / name for folder in others for name in _FOLDERS)]
    for folders in (named, [root], deeper):
        files = [file for folder in folders for file in _json_files(folder)]
        # What is named as COCO names them is one, though it may be damaged.
        found = [file for file in files if _is_named(file) or may_be_annotations(file)]
        if found:
            return found
    return []


def data_root(file: Path) -> Path:
    """Give the folder of the data set that an annotation file belongs to: its own, or the one above `annotations/`."""
    return file.parent.parent if file.parent.name.lower() in _FOLDERS else file.parent


def json_files(root: Path) -> list[Path]:
    """List JSON files of a folder and the folders in it, to say what they are where none is an annotation file."""
    folders = [root, *sorted(path for path in root.iterdir() if path.is_dir())]
    return [file for folder in folders for file in _json_files(folder)]


def packed_files(root: Path) -> list[Path]:
    """List archives and compressed files of a folder and the folders in it, which are not looked into."""
    folders = [root, *sorted(path for path in root.iterdir() if path.is_dir())]
    return [folder / name for folder in folders for name in _file_names(folder) if name.lower().endswith(_PACKED)]


def task_and_split(file: Path, root: Path) -> tuple[str, str]:
    """Read from a file's place and name what it holds of which split.

    Args:
        file: an annotation file.
        root: the data set that it belongs to.

    Returns:
        `instances`, `person_keypoints`, `image_info` or another task of COCO, and the split's name: what follows the
        task or `lvis_v1`, else the name of a split in the file's name, else in that of its folder, else the file's
        name.
    """
    stem = file.stem
    for task in (INSTANCES, KEYPOINTS, IMAGES, *_OTHER_TASKS):
        if stem.startswith(f"{task}_"):
            return task, stem.removeprefix(f"{task}_")
    start, _, end = stem.rpartition("_")
    if _LVIS.match(start):
        return INSTANCES, end
    task = next((task for task in (INSTANCES, KEYPOINTS) if stem == task), INSTANCES)
    found = _SPLIT.search(stem)
    if found:
        return task, found.group(1)
    above = [folder for folder in _folders_above(file, root) if folder != root]
    if above:
        return task, above[0].name
    return task, root.name if _SPLIT.fullmatch(root.name) else stem


def picture_folders(file: Path, split: str) -> list[Path]:
    """List the folders where the pictures of an annotation file may be, likeliest first.

    Folders of other splits are not among them: their pictures may have the same names.

    Args:
        file: the annotation file.
        split: its split's name.

    Returns:
        folders; the first may be missing, where none of the usual ones is there.
    """
    here, root = file.parent, data_root(file)
    word = _SPLIT.search(split)
    names = dict.fromkeys((split, *(word.groups() if word else ()), split.rstrip("0123456789"), file.stem))
    likely = [root / split]
    for name in names:
        likely += [root / name, *(root / parent / name for parent in _PICTURES)]
        likely += [root / name / parent for parent in _PICTURES]
    likely += [root / name for name in _PICTURES]
    # Where none of the usual folders is there, messages name the first.
    usual = _existing(likely) or likely[:1]
    others = [path for path in root.iterdir() if path.is_dir() and not is_of_other_split(path.name, split)]
    return [*usual, root, here, *sorted(others)]


def is_of_other_split(folder: str, split: str) -> bool:
    """Tell by its name whether a folder has the pictures of another split.

    Args:
        folder: its name.
        split: name of the split whose pictures are looked for, such as `test-dev2017`, which has those of `test2017`.

    Returns:
        whether the folder is named after a split for another use.
    """
    words = _SPLIT.fullmatch(folder), _SPLIT.search(split)
    here, wanted = (word and next(use for use in _USES if use in word.group().lower()) for word in words)
    return None not in (here, wanted) and here != wanted


def _json_files(folder: Path) -> list[Path]:
    """JSON files of a folder but those that stand beside a picture of their name (as labelme's) or are hidden."""
    names = _file_names(folder)
    plain = [name for name in names if name.lower().endswith(".json") and name[0] != "."]
    pictures = {path.stem for path in map(Path, names if plain else ()) if path.suffix.lower() in picture_suffixes()}
    return [folder / name for name in plain if name[: -len(".json")] not in pictures]


def _file_names(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(folder) if not entry.is_dir())
    except OSError:
        return []


def _is_named(file: Path) -> bool:
    """Whether a file has the name of one of COCO's or LVIS's with objects or images."""
    tasks = tuple(f"{task}_" for task in (INSTANCES, KEYPOINTS, IMAGES))
    return file.stem.startswith(tasks) or _LVIS.match(file.stem.rpartition("_")[0]) is not None


def _folders_above(file: Path, root: Path) -> Iterator[Path]:
    """Folders that hold a file, from its own to the data set's, but those for annotations."""
    for folder in file.parents:
        if folder.name.lower() not in _FOLDERS:
            yield folder
        if folder == root:
            return


def _existing(folders: Iterable[Path]) -> list[Path]:
    """Folders that exist, each once, also where the case of letters differs."""
    known: dict[Path, dict[str, str]] = {}
    found: dict[Path, None] = {}
    for folder in folders:
        if folder.is_dir():
            found[folder] = None
            continue
        parent = folder.parent
        if parent not in known:
            names = [entry.name for entry in os.scandir(parent) if entry.is_dir()] if parent.is_dir() else []
            known[parent] = {name.lower(): name for name in names}
        if folder.name.lower() in known[parent]:
            found[parent / known[parent][folder.name.lower()]] = None
    return list(found)
