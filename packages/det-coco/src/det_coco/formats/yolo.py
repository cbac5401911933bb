"""YOLO: a text file for each picture, in Ultralytics' layout, darknet's, or with a list of classes alone."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from det_coco._describe import counted, some
from det_coco.errors import DataError
from det_coco.formats.content import ContentBuilder, common_folder
from det_coco.formats.registry import ContentSplit, Format, register
from det_coco.formats.text import read_lines
from det_coco.formats.yolo_description import Description, darknet_path, describe_data, description_file
from det_coco.formats.yolo_rows import read_rows
from det_coco.images import image_sizes, picture_suffixes


def splits(path: Path) -> Mapping[str, ContentSplit]:
    """Find the splits that a data set's own file names.

    Args:
        path: the folder, or the file.

    Returns:
        split name -> where and how it is read.

    Raises:
        DataError: the file is wrong, or what it names is not there.
    """
    file = description_file(path)
    if file is None:
        raise DataError(f"{path} is no YOLO data set: it has no data.yaml.")
    data = describe_data(file)
    sources = {}
    for name, entries in data.splits.items():
        pictures = list(dict.fromkeys(picture for entry in entries for picture in _pictures(data.root, entry)))
        if not pictures:
            raise DataError(f"{file}: '{name}' has no picture in {some(entries)}.")
        folder = common_folder(pictures)
        whole = all(entry.is_dir() for entry in entries)
        read = partial(_read, data, pictures, folder, whole)
        sources[name] = ContentSplit(source=data.file, image_folder=folder, read=read)
    return sources


def _pictures(root: Path, entry: Path) -> Iterator[Path]:
    """List what an entry stands for: the pictures of a folder, those of a list, or itself."""
    if entry.is_dir():
        yield from sorted(f for f in entry.rglob("*") if f.suffix.lower() in picture_suffixes() and f.name[0] != ".")
    elif entry.suffix == ".txt":
        for number, line in read_lines(entry):
            yield _listed(root, entry, number, line)
    else:
        yield entry


def _listed(root: Path, entry: Path, number: int, text: str) -> Path:
    for path in (entry.parent / text, darknet_path(root, text), Path(text)):
        if path.is_file():
            return path
    raise DataError(f"{entry}, line {number}: there is no picture {text} in {entry.parent} or {root}.")


def _label_file(picture: Path) -> Path:
    """Path of a picture's labels: below `labels` where the picture is below `images`, else beside it."""
    beside = picture.with_suffix(".txt")
    parts = list(beside.parts)
    if "images" not in parts[:-1]:
        return beside
    place = len(parts) - 2 - parts[-2::-1].index("images")
    apart = Path(*parts[:place], "labels", *parts[place + 1 :])
    return beside if beside.is_file() and not apart.is_file() else apart


def _read(data: Description, pictures: list[Path], folder: Path, whole: bool) -> dict[str, Any]:
    builder = ContentBuilder(data.categories())
    labels = [_label_file(picture) for picture in pictures]
    bare = [picture for picture, file in zip(pictures, labels, strict=True) if not file.is_file()]
    if len(bare) == len(pictures):
        raise DataError(f"None of the {len(pictures)} pictures in {folder} has labels: {labels[0]} does not exist.")
    if bare:
        what = f"{counted(len(bare), 'picture')} without a label file ({some(p.name for p in bare)})"
        builder.remark("label_file_missing", f"{what}, taken as pictures without objects.")
    for picture, size, file in zip(pictures, image_sizes(pictures), labels, strict=True):
        image_id = builder.add_image(picture.relative_to(folder).as_posix(), size)
        if file.is_file():
            _add_objects(builder, image_id, data, file, size)
    if whole:
        _remark_strays(builder, labels)
    return builder.content()


def _add_objects(builder: ContentBuilder, image_id: int, data: Description, file: Path, size: tuple[int, int]) -> None:
    name = file.relative_to(data.root).as_posix() if file.is_relative_to(data.root) else str(file)
    for row in read_rows(file, size, data.names, data.keypoints):
        more: dict[str, Any] = {}
        if row.keypoints is not None:
            more = {"keypoints": row.keypoints, "num_keypoints": sum(v > 0 for v in row.keypoints[2::3])}
        if row.polygon is not None:
            more["segmentation"] = [row.polygon]
        builder.add_object(f"{name}, line {row.line}", image_id, row.label + 1, box=row.box, **more)


def _remark_strays(builder: ContentBuilder, labels: list[Path]) -> None:
    """Name label files that belong to no picture."""
    used = set(labels)
    folders = sorted({file.parent for file in labels if file.parent.is_dir()})
    files = (file for folder in folders for file in sorted(folder.glob("*.txt")))
    stray = [file.name for file in files if file not in used and file.name != "classes.txt"]
    if stray:
        message = f"{counted(len(stray), 'label file')} without a picture ({some(stray)}), not read."
        builder.remark("label_file_stray", message)


register(Format(name="YOLO", recognises=lambda path: description_file(path) is not None, splits=splits))
