"""Big pictures, looked at tile by tile."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, product
from typing import Any, Literal, NamedTuple

import numpy as np

from det_coco.mask_windows import in_picture
from det_models.detections import Detections
from det_models.errors import OptionError, whole_number
from det_models.images import Loaded, load
from det_models.merging import Match, best, joined, together

__all__ = ["Tiling", "Window", "in_tiles", "put_together"]


class Window(NamedTuple):
    """A part of a picture: its first column and row, its height and width, in pixels."""

    x: int
    y: int
    height: int
    width: int


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """How pictures are looked at in tiles, and what becomes of an object that several tiles show.

    The tiles and what is made of their detections are those of sahi (arXiv:2202.06934).

    Attributes:
        size: Pixels of a tile's side, or (height, width). The last tiles of a row and of a column are moved back into
            the picture; one that is no larger than a tile is looked at as ever.
        overlap: Share of a tile that the next one shows too, from 0 to below 1. Objects smaller than this are whole in
            one tile at least.
        whole: Look at the whole picture too, for objects larger than a tile.
        merge: What becomes of a detection that overlaps a better one of its class. `nms`: it is dropped. `join`: the
            better one gets the box and the mask of both together (sahi's GREEDYNMM), so that an object becomes one that
            no tile shows whole.
        match: How overlap is measured: `ios`, intersection over the smaller area, by which the part of an object that
            a tile shows is in the whole object; or `iou`, which keeps a small object before a large one of its class.
        threshold: The overlap from which on two detections are one, above 0 and at most 1.

    Raises:
        OptionError: A value is none that it can have.
    """

    size: int | tuple[int, int]
    overlap: float = 0.2
    whole: bool = True
    merge: Literal["nms", "join"] = "nms"
    match: Match = "ios"
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if len(self._sides()) != 2:
            raise OptionError(f"tile must be one length or a height and a width, got {self.size}.")
        for side in self._sides():
            whole_number("tile", side)
        if not 0 <= self.overlap < 1:
            raise OptionError(f"overlap must be a share of a tile, from 0 to below 1, got {self.overlap:g}.")
        if not 0 < self.threshold <= 1:
            raise OptionError(f"threshold must be above 0 and at most 1, got {self.threshold:g}.")
        for name, value, known in (("merge", self.merge, ("nms", "join")), ("match", self.match, ("ios", "iou"))):
            if value not in known:
                raise OptionError(f"{name} must be {' or '.join(known)}, got {value!r}.")

    @classmethod
    def of(cls, tile: "int | tuple[int, int] | Tiling", overlap: float) -> "Tiling":
        """What a caller means by a size, or by all of it."""
        return tile if isinstance(tile, Tiling) else cls(size=tile, overlap=overlap)

    def windows(self, height: int, width: int) -> list[Window]:
        """The tiles of a picture, row by row, and perhaps the whole as the last.

        Args:
            height: Of the picture, in pixels.
            width: Of the picture, in pixels.
        """
        tall, wide = self._sides()
        high, across = min(tall, height), min(wide, width)
        corners = product(self._starts(height, tall), self._starts(width, wide))
        windows = [Window(x, y, high, across) for y, x in corners]
        return [*windows, Window(0, 0, height, width)] if self.whole and len(windows) > 1 else windows

    def _sides(self) -> tuple[int, ...]:
        return tuple(self.size) if isinstance(self.size, tuple | list) else (self.size, self.size)

    def _starts(self, length: int, side: int) -> list[int]:
        """Where tiles begin along a side of a picture."""
        step = side - int(self.overlap * side)
        return [*range(0, length - side, step), max(length - side, 0)]


def in_tiles(
    look: Callable[[Iterable[Any]], Iterator[Detections]],
    images: Iterable[Any],
    tiling: Tiling,
    max_detections: int | None = None,
) -> Iterator[Detections]:
    """What a detector finds in pictures that it is shown tile by tile.

    Tiles are made as `look` takes them, and no mask is drawn, so that memory is that of a picture and some tiles.

    Args:
        look: The detector: detections of each of several images, in their order, which it may read ahead.
        images: Pictures of any kind that :func:`det_models.images.load` knows.
        tiling: The tiles.
        max_detections: The most detections of a picture; by default all.
    """
    pictures: deque[tuple[Loaded, list[Window]]] = deque()

    def tiles() -> Iterator[Loaded]:
        for image in images:
            picture = load(image)
            windows = tiling.windows(*picture.size)
            pictures.append((picture, windows))
            for x, y, height, width in windows:
                yield Loaded(picture.pixels[y : y + height, x : x + width])

    found = look(tiles())
    for first in found:
        picture, windows = pictures.popleft()
        parts = zip(chain([first], islice(found, len(windows) - 1)), windows, strict=True)
        chosen = put_together([_moved(part, window, picture.size) for part, window in parts], tiling)
        yield replace(chosen[:max_detections], image=picture.pixels, source=picture.source)


def put_together(parts: Sequence[Detections], tiling: Tiling) -> Detections:
    """What is found in a picture, of what is found in its tiles.

    Args:
        parts: One or more, in pixels of the picture. A single one stays as it is.
        tiling: What becomes of what several of them have.

    Returns:
        Best first; equal scores in the order of the tiles.
    """
    if len(parts) == 1:
        return parts[0]
    return _CHOICES[tiling.merge](together(parts), tiling.match, tiling.threshold)


_CHOICES = {"nms": best, "join": joined}


def _moved(found: Detections, window: Window, size: tuple[int, int]) -> Detections:
    """The detections of a window, without its pixels, in those of the whole picture of (height, width)."""
    if (window.height, window.width) == size:
        return replace(found, image=None)
    x, y = window.x, window.y
    extra = dict(found.extra)
    if found.keypoints is not None:
        extra["keypoints"] = found.keypoints + np.array([x, y, 0], dtype=np.float32)
    return replace(
        found,
        boxes=found.boxes + np.array([x, y, x, y], dtype=np.float32),
        rle=None if found.rle is None else [in_picture(rle, x, y, size) for rle in found.rle],
        extra=extra,
        size=size,
        image=None,
    )
