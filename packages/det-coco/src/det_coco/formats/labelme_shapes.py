"""The shapes of labelme's files."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from det_coco._describe import describe
from det_coco.errors import DataError
from det_coco.formats.content import Segmentation, flat, masked
from det_coco.formats.shapes import ellipse

# Least number of points of the shapes that are objects.
_LEAST = {"polygon": 3, "rectangle": 2, "circle": 2, "mask": 2, "rotation": 3, "oriented_rectangle": 3}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A shape that somebody drew.

    Attributes:
        number: its place in the file, from 1.
        kind: `shape_type`: polygon, rectangle, ...
        label: name of its class.
        points: x, y in pixels.
        group: number that the parts of one object share, or None.
        mask: base64 text of a PNG file, for the kind `mask`.
        marks: further keys of its record.
    """

    number: int
    kind: str
    label: str
    points: list[tuple[float, float]]
    group: int | None
    mask: str | None
    marks: dict[str, Any]

    @property
    def is_object(self) -> bool:
        """Whether it covers an area, as lines and points do not."""
        return self.kind in _LEAST


def read_shape(file: Path, number: int, shape: Any) -> Shape:
    """Read and check a shape.

    Args:
        file: named in messages.
        number: of the shape, from 1.
        shape: an entry of the list `shapes`.

    Returns:
        the shape.

    Raises:
        DataError: it is malformed; names the file and the number.
    """
    name = f"{file}, shape {number}"
    if not isinstance(shape, dict) or not isinstance(shape.get("label"), str):
        raise DataError(f"{name} must be an object with a 'label'.")
    kind, points = shape.get("shape_type") or "polygon", shape.get("points")
    if not isinstance(points, list) or not all(_is_point(point) for point in points):
        raise DataError(f"{name}: 'points' must be a list of points [x, y], got {describe(points)}.")
    if len(points) < _LEAST.get(kind, 0):
        raise DataError(f"{name}: a {kind} must have {_LEAST[kind]} points or more, it has {len(points)}.")
    flags = {key: value for key, value in (shape.get("flags") or {}).items() if value}
    marks = ({"ignore": 1} if shape.get("difficult") is True else {}) | ({"attributes": flags} if flags else {})
    group = shape.get("group_id")
    return Shape(
        number=number, kind=kind, label=shape["label"], points=[(x, y) for x, y in points],
        group=group if isinstance(group, int) else None, mask=shape.get("mask"), marks=marks,
    )  # fmt: skip


def geometry(file: Path, parts: Sequence[Shape], height: int, width: int) -> tuple[list[float], Segmentation | None]:
    """Give the box and the segmentation of an object.

    A rectangle alone is a box; together with other shapes it is a part of the mask.

    Args:
        file: named in messages.
        parts: its shapes.
        height: of the picture in pixels.
        width: of the picture in pixels.

    Returns:
        x, y, width and height of the box; the segmentation, None for a rectangle alone.

    Raises:
        DataError: a mask cannot be read.
    """
    if len(parts) == 1 and parts[0].kind == "rectangle":
        x1, y1, x2, y2 = _bounds(parts[0])
        return [x1, y1, x2 - x1, y2 - y1], None
    bitmaps = [_bitmap(file, shape, height, width) for shape in parts if shape.kind == "mask"]
    return masked([_polygon(shape) for shape in parts if shape.kind != "mask"], bitmaps, height, width)


def _is_point(point: Any) -> bool:
    numbers = isinstance(point, list) and len(point) == 2 and all(type(v) in (int, float) for v in point)
    return numbers and all(map(math.isfinite, point))


def _bounds(shape: Shape) -> tuple[float, float, float, float]:
    xs, ys = zip(*shape.points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _polygon(shape: Shape) -> list[float]:
    if shape.kind == "rectangle":
        x1, y1, x2, y2 = _bounds(shape)
        return [x1, y1, x2, y1, x2, y2, x1, y2]
    if shape.kind == "circle":
        (x, y), on_edge = shape.points[:2]
        radius = math.dist((x, y), on_edge)
        return ellipse(x, y, radius, radius)
    return flat(shape.points)


def _bitmap(file: Path, shape: Shape, height: int, width: int) -> np.ndarray:
    """Place a mask, a picture of its own, in the picture: bool `[h, w]`."""
    name = f"{file}, shape {shape.number}"
    try:
        with Image.open(io.BytesIO(base64.b64decode(shape.mask or "", validate=True))) as image:
            mask = np.asarray(image.convert("L")) > 0
    except Exception:  # binascii and whatever Pillow raises
        raise DataError(f"{name}: 'mask' must be the base64 text of a PNG file.") from None
    left, top = (round(v) for v in _bounds(shape)[:2])
    bottom, right = top + mask.shape[0], left + mask.shape[1]
    if left < 0 or top < 0 or bottom > height or right > width:
        raise DataError(
            f"{name}: its mask of {mask.shape[1]} x {mask.shape[0]} pixels at {left}, {top} reaches out of the picture "
            f"of {width} x {height}."
        )
    bitmap = np.zeros((height, width), dtype=bool)
    bitmap[top:bottom, left:right] = mask
    return bitmap
