"""What LVIS says about which classes each image was searched for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from det_coco._describe import describe
from det_coco._sharing import pack, unpack
from det_coco.errors import DataError

FREQUENCIES = ("r", "c", "f")


@dataclass(frozen=True, kw_only=True, eq=False)
class Federation:
    """Federated annotation of a split: each class is annotated in some of the images only (Gupta et al., "LVIS", 2019).

    `I` images and `C` classes in the order of the index.

    Attributes:
        frequencies: text `[C]`: `r` (rare), `c` (common) or `f` (frequent) of each class in the training images.
        negative: int64 `[P, 2]` pairs of image position and label: classes known to be absent from an image.
        not_exhaustive: int64 `[Q, 2]` pairs of image position and label: classes of which an image may have more
            objects than are annotated.
    """

    frequencies: np.ndarray
    negative: np.ndarray
    not_exhaustive: np.ndarray

    def of_images(self, chosen: np.ndarray) -> "Federation":
        """The part about some images: int64 `[J]` positions, ascending, which are counted from 0 then."""
        parts = {}
        for name in ("negative", "not_exhaustive"):
            pairs = getattr(self, name)
            kept = pairs[np.isin(pairs[:, 0], chosen)]
            parts[name] = np.stack((np.searchsorted(chosen, kept[:, 0]), kept[:, 1]), axis=1)
        return replace(self, **parts)

    def __getstate__(self) -> dict[str, Any]:
        return pack(self.__dict__)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(unpack(state))


def named_by_address(image: Any) -> Any:
    """Name a picture by the last folder and file of its address, as LVIS does, which has no `file_name`.

    Args:
        image: record of an image.

    Returns:
        the record, with a `file_name` where it has none but a `coco_url`.
    """
    if isinstance(image, dict) and "file_name" not in image and isinstance(image.get("coco_url"), str):
        return image | {"file_name": "/".join(image["coco_url"].split("/")[-2:])}
    return image


def read_federation(
    file: Path, image_ids: np.ndarray, images: Sequence[dict[str, Any]], categories: Sequence[dict[str, Any]]
) -> Federation | None:
    """Read the federated part of an annotation file.

    Args:
        file: named in messages.
        image_ids: `[I]`, in the order of the index.
        images: records of the images, in the same order.
        categories: records of the categories, checked to have unique ids.

    Returns:
        the federation, or None where the file is not federated.

    Raises:
        DataError: only some images or categories have what LVIS gives all, or an id is unknown.
    """
    if not any("neg_category_ids" in image for image in images):
        return None
    categories = sorted(categories, key=lambda category: category["id"])
    for category in categories:
        if category.get("frequency") not in FREQUENCIES:
            raise DataError(
                f"{file}: its images have 'neg_category_ids' as in LVIS, so category {category['id']} must have a "
                f"'frequency' of r, c or f, but it has {describe(category.get('frequency'))}."
            )
    labels = {category["id"]: label for label, category in enumerate(categories)}
    return Federation(
        frequencies=np.array([category["frequency"] for category in categories], dtype="U1"),
        negative=_pairs(file, image_ids, images, "neg_category_ids", labels),
        not_exhaustive=_pairs(file, image_ids, images, "not_exhaustive_category_ids", labels),
    )


def _pairs(
    file: Path, image_ids: np.ndarray, images: Sequence[dict[str, Any]], key: str, labels: dict[int, int]
) -> np.ndarray:
    pairs = []
    for position, image in enumerate(images):
        ids = image.get(key)
        if not isinstance(ids, list) or not all(type(i) is int and i in labels for i in ids):
            raise DataError(
                f"{file}: '{key}' of image {image_ids[position]} must be a list of category ids, got {describe(ids)}."
            )
        pairs += [(position, labels[i]) for i in ids]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)
