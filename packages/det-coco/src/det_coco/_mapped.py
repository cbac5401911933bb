"""Arrays in a file that every process maps, so that all of them share one copy of its pages."""

import hashlib
import json
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from weakref import WeakValueDictionary

import numpy as np

from det_coco.errors import DataError

# What the file is, and the sizes of header and file in bytes; then the digest of all that follows.
_HEAD = struct.Struct("<16sQQ")
_DIGEST = 32
_MAGIC = b"det-coco arrays\n"
_ALIGNED = 64
# Bytes that are summed at once, as rows of words.
_BLOCK, _WORDS = 1 << 20, 256


class MappedFile(mmap.mmap):
    """Pages of a file, which know its path."""

    path: Path


@dataclass(frozen=True, slots=True)
class MappedArray:
    """What crosses to another process in place of an array: where it lies."""

    path: Path
    offset: int
    dtype: str
    shape: tuple[int, ...]

    def array(self) -> np.ndarray:
        """Map it, read-only.

        Raises:
            DataError: the file has been removed since.
        """
        return np.ndarray(self.shape, self.dtype, buffer=_mapped(self.path), offset=self.offset)


_open: WeakValueDictionary[Path, MappedFile] = WeakValueDictionary()


def _mapped(path: Path) -> MappedFile:
    """The pages of a file, once in this process for all of its arrays."""
    pages = _open.get(path)
    if pages is None:
        try:
            with path.open("rb") as file:
                pages = MappedFile(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise DataError(
                f"The index in {path} cannot be read any more: {error.strerror or error}. Start again."
            ) from None
        pages.path = path
        _open[path] = pages
    return pages


def place_of(array: np.ndarray) -> MappedArray | None:
    """Where an array lies in a mapped file; None where it lies in memory, or not in one piece."""
    owner: Any = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if not isinstance(owner, MappedFile) or not array.flags.c_contiguous:
        return None
    first = np.frombuffer(owner, dtype=np.uint8).__array_interface__["data"][0]
    offset = array.__array_interface__["data"][0] - first
    return MappedArray(owner.path, offset, array.dtype.str, array.shape)


def write_arrays(file: BinaryIO, arrays: Mapping[str, np.ndarray], meta: Any) -> None:
    """Write arrays so that they can be mapped.

    Args:
        file: open for writing and reading, empty.
        arrays: by name.
        meta: anything that JSON can hold.
    """
    places, offset = {}, 0
    for name, array in arrays.items():
        places[name] = (array.dtype.str, array.shape, offset)
        offset += -(-array.nbytes // _ALIGNED) * _ALIGNED
    header = json.dumps({"meta": meta, "arrays": places}).encode()
    header += b" " * (-(_HEAD.size + _DIGEST + len(header)) % _ALIGNED)
    begin = _HEAD.size + _DIGEST + len(header)
    file.write(_HEAD.pack(_MAGIC, len(header), begin + offset) + bytes(_DIGEST))
    digest = _Digest()
    contents = (np.ascontiguousarray(array).reshape(-1).view(np.uint8).data for array in arrays.values())
    for content in (memoryview(header), *contents):
        for data in (content, memoryview(bytes(-len(content) % _ALIGNED))):
            file.write(data)
            digest.update(data)
    file.seek(_HEAD.size)
    file.write(digest.finish())


def map_arrays(path: Path, *, check: bool = True) -> tuple[dict[str, np.ndarray], Any]:
    """Map what `write_arrays` has written.

    Args:
        path: the file.
        check: look at all of its content before.

    Returns:
        the arrays, read-only, and the rest.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged, or none of ours.
    """
    with path.open("rb", buffering=0) as file:
        head = file.read(_HEAD.size + _DIGEST)
        if len(head) < _HEAD.size + _DIGEST:
            raise ValueError("too short")
        magic, length, size = _HEAD.unpack_from(head)
        if magic != _MAGIC or size != path.stat().st_size:
            raise ValueError("no file of ours, or cut")
        if check and _Digest().read(file) != head[_HEAD.size :]:
            raise ValueError("damaged")
        file.seek(len(head))
        header = json.loads(file.read(length))
    begin = len(head) + length
    return {
        name: MappedArray(path, begin + offset, dtype, tuple(shape)).array()
        for name, (dtype, shape, offset) in header["arrays"].items()
    }, header["meta"]


class _Digest:
    """Digest of a stream at the speed of memory: of the sums of its words, column by column, block by block.

    It finds damage, not forgery.
    """

    def __init__(self) -> None:
        self._buffer, self._filled = memoryview(bytearray(_BLOCK)), 0
        self._words = np.frombuffer(self._buffer, dtype="<u8").reshape(-1, _WORDS)
        self._digest = hashlib.blake2b(digest_size=_DIGEST)

    def update(self, data: memoryview) -> None:
        """Take bytes, of whatever length."""
        while len(data):
            part = data[: _BLOCK - self._filled]
            self._buffer[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            data = data[len(part) :]
            if self._filled == _BLOCK:
                self._add()

    def read(self, file: BinaryIO) -> bytes:
        """Digest the rest of a file, which is read, not mapped, so that its pages are no memory of this process."""
        while count := file.readinto(self._buffer[self._filled :]):  # pyrefly: ignore[missing-attribute]
            self._filled += count
            if self._filled == _BLOCK:
                self._add()
        return self.finish()

    def finish(self) -> bytes:
        """Give the digest."""
        self._add()
        return self._digest.digest()

    def _add(self) -> None:
        self._buffer[self._filled :] = bytes(_BLOCK - self._filled)
        self._digest.update(np.add.reduce(self._words, axis=0).tobytes())
        self._digest.update(self._filled.to_bytes(8, "little"))
        self._filled = 0
