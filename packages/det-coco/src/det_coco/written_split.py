"""A split of a data set into images to learn from and held-out ones, written down so that it can be used again."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from det_coco._describe import some
from det_coco.annotations import CocoIndex
from det_coco.errors import DataError
from det_coco.holdout import HeldOut
from det_coco.outputs import whole_file


class SplitSource(Protocol):
    """What a split is read from."""

    @property
    def source(self) -> Path:
        """The file or folder that messages name."""
        ...

    @property
    def image_folder(self) -> Path:
        """Folder of its pictures."""
        ...

    @property
    def read(self) -> Callable[[], dict[str, Any]]:
        """Reads it in COCO's JSON shape, unchecked."""
        ...

    def load(self, *, check_images: bool = True, require_objects: bool = True) -> CocoIndex:
        """Read, check and pack it; the options are those of `CocoIndex.load`."""
        ...


@dataclass(frozen=True, kw_only=True)
class WrittenPart:
    """A part of a split, chosen by file names.

    Attributes:
        file: where that is written.
        whole: what it is a part of.
        file_names: names of its pictures.
    """

    file: Path
    whole: SplitSource
    file_names: frozenset[str]

    @property
    def source(self) -> Path:
        """What the whole is read from."""
        return self.whole.source

    @property
    def image_folder(self) -> Path:
        """Where the pictures of the whole are."""
        return self.whole.image_folder

    def read(self) -> dict[str, Any]:
        """Read the records of the part.

        Raises:
            DataError: as for `load`.
        """
        content = self.whole.read()
        ids = set(self.load(check_images=False, require_objects=False).image_ids.tolist())
        return content | {
            "images": [image for image in content["images"] if image["id"] in ids],
            "annotations": [one for one in content.get("annotations", []) if one["image_id"] in ids],
        }

    def load(self, *, check_images: bool = True, require_objects: bool = True) -> CocoIndex:
        """Read the part.

        Args:
            check_images: as for `CocoIndex.load`.
            require_objects: as for `CocoIndex.load`.

        Returns:
            its index.

        Raises:
            DataError: images are no longer there, or as for `CocoIndex.load`.
        """
        index = self.whole.load(check_images=check_images, require_objects=require_objects)
        names = index.file_names.tolist()
        missing = sorted(self.file_names.difference(names))
        if missing:
            raise DataError(
                f"{self.file} names {len(missing)} images that {index.annotation_file} no longer has "
                f"({some(missing)}). Split the data again: name the data set itself instead of this file."
            )
        mine = np.array([name in self.file_names for name in names], dtype=bool)
        return index.of_images(index.image_ids[mine].tolist())


def write_split(file: str | Path, held: HeldOut, data: str | Path, split: str) -> None:
    """Write down which images are held out; `find_splits` reads the file as a data set of two splits.

    Args:
        file: JSON file to write.
        held: the parts.
        data: folder or file of the data set that was split.
        split: name of its only split.

    Raises:
        DataError: it cannot be written.
    """
    content = {
        "data": str(Path(data).resolve()),
        "split": split,
        "rule": held.rule,
        "train": held.train.file_names.tolist(),
        "val": held.val.file_names.tolist(),
    }
    with whole_file(Path(file)) as out:
        out.write(f"{json.dumps(content, indent=1)}\n".encode())


def written_parts(file: Path, find: Callable[[Path], Mapping[str, SplitSource]]) -> dict[str, WrittenPart] | None:
    """Read what `write_split` wrote.

    Args:
        file: any file.
        find: finds the splits of the data set that was split.

    Returns:
        `train` and `val`; None where the file is another one.

    Raises:
        DataError: the data set is not there any more, or has no such split.
    """
    content = _read(file)
    if content is None:
        return None
    data = Path(content["data"])
    if not data.exists():
        raise DataError(f"{file} splits {data}, which does not exist. Write its place under 'data', or split it again.")
    splits = find(data)
    if content["split"] not in splits:
        raise DataError(f"{file} splits '{content['split']}' of {data}, which has {', '.join(splits)}. Split it again.")
    whole = splits[content["split"]]
    return {part: WrittenPart(file=file, whole=whole, file_names=frozenset(content[part])) for part in ("train", "val")}


def _read(file: Path) -> dict[str, Any] | None:
    with file.open("rb") as opened:
        if b'"data"' not in opened.read(64):
            return None
    try:
        content = json.loads(file.read_bytes())
    except ValueError:
        return None
    texts = isinstance(content, dict) and all(isinstance(content.get(key), str) for key in ("data", "split"))
    return content if texts and all(_are_names(content.get(part)) for part in ("train", "val")) else None


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)
