"""Collecting a split in COCO's JSON shape."""

import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from det_coco._coco_api import coco_mask
from det_coco.errors import DataError
from det_coco.remarks import Remark

# Run lengths are 32-bit numbers, here as in pycocotools.
_MOST_PIXELS = (1 << 31) - 1
# Polygons x, y, x, y, ..., or a run-length code.
Segmentation = list[list[float]] | dict[str, Any]


class ContentBuilder:
    """Images, objects and remarks of a split, as a reader comes upon them.

    Args:
        categories: records of the categories, each with `id` and `name`.
    """

    def __init__(self, categories: Sequence[dict[str, Any]]) -> None:
        self._categories = list(categories)
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._remarks: list[Remark] = []

    def add_image(self, file_name: str, size: tuple[int, int], **more: Any) -> int:
        """Add an image.

        Args:
            file_name: relative to the image folder of the split.
            size: (height, width) in pixels.
            **more: further keys of its record.

        Returns:
            its id: 1, 2, ...

        Raises:
            DataError: no picture has that size.
        """
        if not (min(size) >= 1 and size[0] * size[1] <= _MOST_PIXELS):
            raise DataError(f"The image {file_name} cannot have {size[1]} x {size[0]} pixels (width x height).")
        image_id = len(self._images) + 1
        height, width = size
        self._images.append({"id": image_id, "file_name": file_name, "height": height, "width": width} | more)
        return image_id

    def add_object(
        self,
        place: str,
        image_id: int,
        category_id: int,
        *,
        box: Sequence[float],
        segmentation: Segmentation | None = None,
        **more: Any,
    ) -> None:
        """Add an object.

        Args:
            place: where it stands, which messages name: `a.txt, line 3`.
            image_id: as `add_image` gave it.
            category_id: of one of the categories.
            box: x, y, width and height in pixels.
            segmentation: polygons x, y, x, y, ... or a run-length code, or None.
            **more: further keys of its record.
        """
        record = {"id": place, "image_id": image_id, "category_id": category_id, "bbox": list(box)} | more
        self._annotations.append(record if segmentation is None else record | {"segmentation": segmentation})

    def remark(self, kind: str, message: str) -> None:
        """Note what was passed over or interpreted.

        Args:
            kind: what it is, for programs.
            message: one or more whole sentences.
        """
        self._remarks.append(Remark(kind, message))

    def content(self) -> dict[str, Any]:
        """What was collected, as `ContentSplit.read` gives it."""
        return {
            "images": self._images, "annotations": self._annotations, "categories": self._categories,
            "remarks": self._remarks,
        }  # fmt: skip


def numbered(names: Sequence[str]) -> list[dict[str, Any]]:
    """Make categories of class names, with the ids 1, 2, ..."""
    return [{"id": number, "name": name} for number, name in enumerate(names, start=1)]


def common_folder(paths: Sequence[Path]) -> Path:
    """Find the folder that all of some files lie in, at any depth."""
    return Path(os.path.commonpath([path.parent for path in paths]))


def box_around(polygons: Sequence[Sequence[float]]) -> list[float]:
    """Find the box around polygons.

    Args:
        polygons: each x, y, x, y, ...

    Returns:
        x, y, width and height.
    """
    xs, ys = ([v for polygon in polygons for v in polygon[k::2]] for k in (0, 1))
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def mask_code(bitmap: np.ndarray) -> dict[str, Any]:
    """Encode a mask as COCO's compressed run-length code.

    Args:
        bitmap: `[h, w]`, zero outside and non-zero inside.

    Returns:
        `size` and `counts`, ready for JSON.
    """
    code = coco_mask.encode(np.asfortranarray(bitmap.astype(bool), dtype=np.uint8))
    return {"size": list(bitmap.shape), "counts": code["counts"].decode("ascii")}


def masked(
    polygons: Sequence[list[float]], bitmaps: Sequence[np.ndarray], height: int, width: int
) -> tuple[list[float], Segmentation]:
    """Give the box and the segmentation of an object of several parts.

    Args:
        polygons: parts x, y, x, y, ...
        bitmaps: parts `[h, w]`, zero outside and non-zero inside.
        height: h, of the picture in pixels.
        width: w, of the picture in pixels.

    Returns:
        x, y, width and height of the box; the polygons, or a run-length code where there are bitmaps.
    """
    if not bitmaps:
        return box_around(polygons), list(polygons)
    parts = coco_mask.frPyObjects(list(polygons), height, width) if polygons else []
    code = mask_code(np.any([*bitmaps, *map(coco_mask.decode, parts)], axis=0))
    return coco_mask.toBbox(code).tolist(), code


def flat(points: Sequence[tuple[float, float]]) -> list[float]:
    """List the points of a polygon as COCO does: x, y, x, y, ..."""
    return list(chain.from_iterable(points))
