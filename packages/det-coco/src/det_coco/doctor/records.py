"""One split read so that what is wrong with a record does not hide the others."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from det_coco._describe import kind, some
from det_coco._json import not_json
from det_coco.doctor.findings import Case, Change, remove, replace
from det_coco.errors import DataError

UNLABELLED = "image_info_"
"""How files begin that come without annotations on purpose: COCO's test-dev."""
LISTS = ("images", "annotations", "categories")


@dataclass(kw_only=True, eq=False)
class Records:
    """A split as its file has it: `I` images and `N` annotations that can be used, `R` rows in the file.

    Attributes:
        name: of the split.
        file: the annotation file.
        folder: where the pictures are.
        content: the file's lists, as they are.
        image_rows: int64 `[I]` rows in `content["images"]`.
        image_ids: I ids.
        file_names: I names, as the file has them.
        sizes: int64 `[I, 2]` height, width as the file has them; 0 where it has none.
        rows: int64 `[N]` rows in `content["annotations"]`.
        ids: N annotation ids of any type.
        image: int64 `[N]` positions in `image_ids`.
        category: int64 `[N]` category ids.
        boxes: float64 `[N, 4]` x, y, width, height; NaN where the file has no usable box.
        areas: float64 `[N]`; NaN where the file has none that can be one.
        crowd: bool `[N]` crowd regions and objects to be ignored.
        categories: category id -> name.
        cases: what was found on the way.
        is_coco: whether the file is COCO's JSON, and not of a format that knows no ids and areas.
        held: pictures that lie in no folder, the bytes of their files by row in `content["images"]`.
    """

    name: str
    file: Path
    folder: Path
    content: dict[str, list[Any]] = field(repr=False)
    image_rows: np.ndarray
    image_ids: list[int]
    file_names: list[str]
    sizes: np.ndarray
    rows: np.ndarray
    ids: list[Any]
    image: np.ndarray
    category: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    categories: dict[int, str]
    cases: list[Case] = field(repr=False)
    is_coco: bool = True
    held: dict[int, bytes] = field(default_factory=dict, repr=False)

    @property
    def labelled(self) -> bool:
        """Whether the split is meant to have annotations, as COCO's `image_info_*.json` are not."""
        return not self.file.name.startswith(UNLABELLED)

    def name_of(self, n: int) -> str:
        """Words for annotation n: its id, and the picture it is in."""
        return f"annotation {some([self.ids[n]])} in {self.file_of(n)}"

    def file_of(self, n: int) -> str:
        """Name of the picture that annotation n is in."""
        return self.file_names[self.image[n]]

    def record(self, n: int) -> dict[str, Any]:
        """Annotation n as the file has it."""
        return self.content["annotations"][int(self.rows[n])]

    def case(self, kind: str, n: int, detail: str, *fix: Change, others: tuple[int, ...] = ()) -> Case:
        """What was found of annotation n, and of others in the same picture."""
        ids = tuple(self.ids[m] for m in (n, *others))
        return Case(kind=kind, detail=detail, files=(self.file_of(n),), annotation_ids=ids, fix=fix)

    def set(self, n: int, key: str, value: Any) -> Change:
        """The change that gives annotation n another value."""
        return replace(value, "annotations", int(self.rows[n]), key)

    def drop(self, n: int) -> Change:
        """The change that takes annotation n out."""
        return remove("annotations", int(self.rows[n]))

    def by_image(self) -> list[np.ndarray]:
        """Annotations of each image, in the file's order: I arrays int64 `[M]`."""
        if not self.image_ids:
            return []
        order = np.argsort(self.image, kind="stable")
        return np.split(order, np.searchsorted(self.image[order], np.arange(1, len(self.image_ids))))

    def drop_image(self, position: int) -> tuple[Change, ...]:
        """The changes that take out an image with its annotations."""
        inside = np.flatnonzero(self.image == position)
        return (*(self.drop(int(n)) for n in inside), remove("images", int(self.image_rows[position])))


def read_content(file: Path) -> dict[str, list[Any]]:
    """Read the three lists of a COCO file.

    Args:
        file: the annotation file.

    Returns:
        the file's object; its `images`, `annotations` and `categories` are lists, of anything.

    Raises:
        DataError: it cannot be read, is not JSON, or is another kind of file, which is named.
    """
    try:
        text = file.read_bytes()
    except OSError as error:
        raise DataError(f"The annotation file {file} cannot be read: {error.strerror or error}.") from None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise not_json(file, text, error) from None
    if not isinstance(content, dict):
        hint = " A list is what predictions look like." if isinstance(content, list) else ""
        raise DataError(f"{file} is not a COCO annotation file: it holds {kind(content)}, not an object.{hint}")
    if file.name.startswith(UNLABELLED):
        content.setdefault("annotations", [])
    for key in LISTS:
        if not isinstance(content.get(key), list):
            raise DataError(f"{file} is not a COCO annotation file: it has no list '{key}'.")
    if any(isinstance(row, dict) and "segments_info" in row for row in content["annotations"][:1]):
        raise DataError(f"{file} is a panoptic file. Give the one of instances, instances_*.json.")
    return content
