"""Splits of a data set in COCO's JSON."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from det_coco._beginnings import beginning_of
from det_coco._discover import (
    IMAGES,
    INSTANCES,
    KEYPOINTS,
    annotation_files,
    data_root,
    is_of_other_split,
    json_files,
    packed_files,
    picture_folders,
    task_and_split,
)
from det_coco._file_kinds import file_names_in, may_be_annotations, other_kind
from det_coco._find_pictures import picture_folder
from det_coco._json import read_json
from det_coco.annotations import CocoIndex
from det_coco.errors import DataError


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """One split of a data set in COCO's JSON.

    Attributes:
        name: of the split, for example val2017.
        annotation_file: the JSON file.
        image_folder: the folder where its pictures are found by their names.
    """

    name: str
    annotation_file: Path
    image_folder: Path

    @property
    def source(self) -> Path:
        """The annotation file."""
        return self.annotation_file

    def read(self) -> dict[str, Any]:
        """Read the annotation file as it is.

        Raises:
            DataError: it cannot be read, or is no JSON.
        """
        return read_json(self.annotation_file)

    def load(self, *, check_images: bool = True, require_objects: bool = True) -> CocoIndex:
        """Read the split.

        Args:
            check_images: as for `CocoIndex.load`.
            require_objects: as for `CocoIndex.load`.

        Returns:
            its index.

        Raises:
            DataError: as for `CocoIndex.load`.
        """
        return CocoIndex.load(
            self.annotation_file, self.image_folder, check_images=check_images, require_objects=require_objects
        )


def coco_splits(path: Path, *, keypoints: bool = False) -> dict[str, Split]:
    """Find the splits in a folder, or the one in an annotation file.

    Args:
        path: the folder or file.
        keypoints: prefer `person_keypoints_<split>.json` to `instances_<split>.json`.

    Returns:
        split name -> where it is, by name; empty where there is no annotation file of COCO's.
    """
    if path.is_file():
        return {split.name: split for split in [coco_split(path)] if may_be_annotations(path)}
    files = annotation_files(path)
    # Files of keypoints have boxes too, but beside instances they would be another data set.
    boxes = INSTANCES if any(task_and_split(file, path)[0] == INSTANCES for file in files) else KEYPOINTS
    splits = _splits(files, path, (KEYPOINTS, INSTANCES, IMAGES) if keypoints else (boxes, IMAGES))
    return {split.name: split for split in sorted(splits, key=lambda split: split.name)}


def coco_split(file: Path) -> Split:
    """Take a file as the annotations of a split, whatever it holds.

    Args:
        file: the file.

    Returns:
        the split, named after the file.
    """
    root = data_root(file)
    return _split(task_and_split(file, root)[1], file, root)


def refusal(path: Path) -> DataError:
    """Say why a path is no data set.

    Args:
        path: a folder or file in which nothing can be read.

    Returns:
        the error, which names files that were mistaken for annotations.
    """
    if path.is_file():
        what = beginning_of(path)
        if what is not None:
            return DataError(f"{path} is {what}.")
        return DataError(
            f"{path} is not a data set: neither a COCO annotation file nor one of another format that can be read. "
            "Give a folder, or a JSON file with images, annotations and categories."
        )
    reasons = [reason for file in json_files(path)[:20] if (reason := _why_not(file)) is not None]
    reasons += [f"{file} is {what}." for file in packed_files(path)[:20] if (what := beginning_of(file)) is not None]
    if reasons:
        return DataError(" ".join(reasons[:3]))
    return DataError(
        f"{path} is not a COCO data set: it has no annotations/instances_<split>.json, nor another annotation file "
        "of COCO's beside the pictures or one folder below. Expected, as in COCO 2017: "
        "annotations/instances_train2017.json, annotations/instances_val2017.json, train2017/, val2017/. Nor is it of "
        "another format: YOLO needs a data.yaml with the names of the classes, Pascal VOC a folder Annotations, CVAT "
        "an annotations.xml, labelme a JSON file beside each picture."
    )


def _why_not(file: Path) -> str | None:
    """Why a JSON file is no annotation file; None where it is JSON of a kind that nobody mistakes for one."""
    kind = other_kind(file)
    if kind is not None:
        return f"{file} is {kind}."
    try:
        read_json(file)
    except DataError as error:
        return str(error)
    return None


def _splits(files: Sequence[Path], root: Path, tasks: Sequence[str]) -> list[Split]:
    """One split for each name, of the first task that has it; files of the same task and name keep their own names."""
    by_split: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for file in files:
        task, split = task_and_split(file, root)
        by_split[split][task].append(file)
    found = []
    for split, by_task in by_split.items():
        chosen: Iterable[Path] = next((by_task[task] for task in tasks if task in by_task), ())
        chosen = list(chosen)
        found += [_split(split if len(chosen) == 1 else file.stem, file, root) for file in chosen]
    return found


def _split(name: str, file: Path, root: Path) -> Split:
    folder = picture_folder(
        file_names_in(file), picture_folders(file, name), root, lambda folder: is_of_other_split(folder, name)
    )
    return Split(name=name, annotation_file=file, image_folder=folder)
