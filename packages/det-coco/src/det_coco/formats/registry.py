"""The interface that a reader of a format implements, and the list of those that are known."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from det_coco._coco_splits import coco_splits
from det_coco._parse import read_json
from det_coco.annotations import CocoIndex
from det_coco.errors import DataError
from det_coco.memory import MemoryPictures
from det_coco.remarks import log_remarks


@dataclass(frozen=True, kw_only=True)
class SplitSource:
    """One split of a data set: where it is, and how it is read.

    Attributes:
        source: the file or folder that messages name.
        image_folder: folder that the images' `file_name` are relative to.
        read: gives the split in COCO's JSON shape: a dictionary of the lists `images`, `annotations` and `categories`.
            An image may hold the bytes of its picture file as `picture`, where it lies in no folder, and a list
            `remarks` may say what was passed over.
    """

    source: Path
    image_folder: Path
    read: Callable[[], dict[str, Any]]

    def load(self, *, check_images: bool = True, require_objects: bool = True) -> CocoIndex:
        """Read the split, with all checks of a COCO file.

        Args:
            check_images: check that every picture exists.
            require_objects: refuse a split without a single usable object.

        Returns:
            the index.

        Raises:
            DataError: anything that would make training wrong or stop it later; the message says what and where.
        """
        return self.load_with_content(check_images=check_images, require_objects=require_objects)[0]

    def load_with_content(self, **options: bool) -> tuple[CocoIndex, dict[str, Any]]:
        """Read the split, and keep what it was made of.

        Args:
            **options: as for `load`.

        Returns:
            the index, and the split in COCO's JSON shape.

        Raises:
            DataError: as for `load`.
        """
        content = self.read()
        remarks = tuple(content.pop("remarks", ()))
        log_remarks(self.source, remarks)
        held = {record["id"]: record.pop("picture") for record in content["images"] if "picture" in record}
        if held:
            options = options | {"check_images": False}
        # Checking completes records, but the content is the file's.
        copy = content | {key: [dict(record) for record in content[key]] for key in ("images", "annotations")}
        index = CocoIndex.from_content(copy, source=self.source, image_folder=self.image_folder, **options)
        pictures = MemoryPictures.of([held.get(i) for i in index.image_ids.tolist()]) if held else None
        return replace(index, pictures=pictures, remarks=remarks + index.remarks), content


@dataclass(frozen=True, kw_only=True)
class Format:
    """A format of data sets.

    Attributes:
        name: of the format, for messages.
        recognises: tells whether a folder or file is a data set of this format.
        splits: gives the splits of such a data set by their names.
    """

    name: str
    recognises: Callable[[Path], bool]
    splits: Callable[[Path], Mapping[str, SplitSource]]


_FORMATS: dict[str, Format] = {}


def register(data_format: Format) -> Format:
    """Add a format to those that a data set is tried with; one of the same name is replaced.

    Args:
        data_format: the format.

    Returns:
        the same.
    """
    _FORMATS.pop(data_format.name, None)
    _FORMATS[data_format.name] = data_format
    return data_format


def find_sources(path: str | Path) -> dict[str, SplitSource]:
    """Find the splits of a data set of any known format, COCO's JSON among them.

    Args:
        path: a folder or a file.

    Returns:
        split name -> where and how it is read.

    Raises:
        DataError: the path does not exist, or is no data set.
    """
    found = find(path)
    if found is not None:
        return dict(found.splits(Path(path)))
    return {
        name: SplitSource(
            source=split.annotation_file,
            image_folder=split.image_folder,
            read=partial(read_json, split.annotation_file),
        )
        for name, split in coco_splits(Path(path)).items()
    }


def find(path: str | Path) -> Format | None:
    """Find the format of a data set, the last registered first.

    Args:
        path: a folder or a file.

    Returns:
        the format, or None where no registered one recognises it (COCO's own layouts are not among them).

    Raises:
        DataError: the path does not exist.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"The data set {path} does not exist.")
    return next((known for known in reversed(_FORMATS.values()) if known.recognises(path)), None)
