"""Picture files in memory, packed into two arrays."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from det_coco._sharing import pack, unpack


@dataclass(frozen=True, kw_only=True, eq=False)
class MemoryPictures:
    """The bytes of picture files of a split, which processes share as they share its index.

    Attributes:
        content: uint8 `[B]`, here B bytes: the files one after the other.
        offsets: int64 `[I + 1]`; image i owns bytes `[i]:[i + 1]`, none where its picture lies in a folder.
    """

    content: np.ndarray
    offsets: np.ndarray

    @staticmethod
    def of(files: Sequence[bytes | None]) -> "MemoryPictures":
        """Pack picture files.

        Args:
            files: for each image the bytes of its file, in any format that Pillow reads; None where it is in a folder.

        Returns:
            the files.
        """
        lengths = [len(file or b"") for file in files]
        content = np.frombuffer(bytearray().join(file or b"" for file in files), dtype=np.uint8)
        return MemoryPictures(content=content, offsets=np.concatenate(([0], np.cumsum(lengths))).astype(np.int64))

    def file(self, position: int) -> bytes | None:
        """Bytes of the picture file of the image at a position, None where it lies in a folder."""
        first, last = self.offsets[position : position + 2]
        return self.content[first:last].tobytes() if last > first else None

    def of_images(self, positions: Iterable[int]) -> "MemoryPictures":
        """The files of some images, which are counted from 0 then."""
        return MemoryPictures.of([self.file(position) for position in positions])

    def __getstate__(self) -> dict[str, Any]:
        return pack(self.__dict__)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(unpack(state))


def picture_file(pixels: np.ndarray) -> bytes:
    """Make an uncompressed picture file.

    Args:
        pixels: uint8 `[h, w, 3]` RGB.

    Returns:
        a BMP file, which every program reads, in next to no time.
    """
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "BMP")
    return stream.getvalue()
