"""The interface that a reader of a format implements, and the list of those that are known."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from det_coco._describe import some
from det_coco.annotations import CocoIndex
from det_coco.errors import DataError
from det_coco.memory import MemoryPictures
from det_coco.remarks import log_remarks


@dataclass(frozen=True, kw_only=True)
class ContentSplit:
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
        content = self.read()
        remarks = tuple(content.get("remarks", ()))
        log_remarks(self.source, remarks)
        held = {record["id"]: record["picture"] for record in content["images"] if "picture" in record}
        if held and check_images:
            self._check_others(content["images"])
        index = CocoIndex.from_content(
            content,
            source=self.source,
            image_folder=self.image_folder,
            check_images=check_images and not held,
            require_objects=require_objects,
        )
        pictures = MemoryPictures.of([held.get(i) for i in index.image_ids.tolist()]) if held else None
        return replace(index, pictures=pictures, remarks=remarks + index.remarks)

    def _check_others(self, images: list[dict[str, Any]]) -> None:
        """Look for the pictures that do not lie in memory."""
        names = [image["file_name"] for image in images if "picture" not in image]
        missing = [name for name in names if not (self.image_folder / name).is_file()]
        if missing:
            raise DataError(f"{self.source}: pictures are missing from {self.image_folder} ({some(missing)}).")


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
    splits: Callable[[Path], Mapping[str, ContentSplit]]


# Formats of installed packages register themselves: entry points, each the place of a `Format`.
_ENTRY_POINTS = "det_coco.formats"
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


def find(path: str | Path) -> Format | None:
    """Find the format of a data set, the last registered first.

    Args:
        path: a folder or a file.

    Returns:
        the format, or None where no registered one recognises it (COCO's own layouts are not among them).

    Raises:
        DataError: the path does not exist, or an installed format cannot be imported.
    """
    _register_installed()
    path = Path(path)
    if not path.exists():
        raise DataError(f"The data set {path} does not exist.")
    return next((known for known in reversed(_FORMATS.values()) if known.recognises(path)), None)


@cache
def _register_installed() -> None:
    for entry in entry_points(group=_ENTRY_POINTS):
        try:
            register(entry.load())
        except Exception as error:  # whatever a package raises that does not fit
            raise DataError(f"The installed data format '{entry.name}' cannot be imported: {error}.") from error
