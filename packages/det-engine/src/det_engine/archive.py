"""The bytes of a checkpoint file: sealed while they are written, and verified before they are read.

A file is what `torch.save` writes, a zip archive, followed by a seal: a mark and the SHA-256 of everything before it.
Where the seal is missing or stands elsewhere, as in a file that something was appended to, the archive's own checksums
decide.
"""

import hashlib
import os
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

_MARK = b"det-engine sha256:"
_SEAL_BYTES = len(_MARK) + hashlib.sha256().digest_size
_BLOCK = 1 << 22


class SealingWriter:
    """File-like object that hashes what passes through and remembers the first error of the disk.

    Args:
        file: open for writing, in binary mode.

    Attributes:
        error: what the file raised, or None.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        """Write and hash `data`; how much was written."""
        try:
            written = self._file.write(data)
        except OSError as error:
            self.error = error
            raise
        self._hash.update(data)
        return written

    def flush(self) -> None:
        """Flush the file."""
        self._file.flush()

    def seal(self) -> None:
        """Write the seal, which ends the file."""
        self._file.write(_MARK + self._hash.digest())


def is_sealed(path: Path) -> bool:
    """Whether a file ends with a seal, right or wrong; raises OSError where it cannot be read."""
    with path.open("rb") as file:
        return _seal(file) is not None


def is_whole(path: Path) -> bool:
    """Whether the content of a file is what was written: by its seal, or else by the archive's own checksums.

    A file that is no zip archive is no whole checkpoint. Of an archive that was written without checksums, the
    directory has to be enough.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        seal = _seal(file)
        return (seal is None or seal == _digest(file)) and _archive_holds(file, checked=seal is not None)


def _seal(file: BinaryIO) -> bytes | None:
    """The digest in the seal, or None without one."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - _SEAL_BYTES))
    seal = file.read()
    return seal[len(_MARK) :] if seal.startswith(_MARK) else None


def _digest(file: BinaryIO) -> bytes:
    """SHA-256 of what stands before the seal."""
    remaining = file.seek(0, os.SEEK_END) - _SEAL_BYTES
    digest = hashlib.sha256()
    file.seek(0)
    while remaining:
        block = file.read(min(_BLOCK, remaining))
        digest.update(block)
        remaining -= len(block)
    return digest.digest()


def _archive_holds(file: BinaryIO, *, checked: bool) -> bool:
    """Whether a zip archive's entries fit into the file, and unless checked otherwise, have the checksums it names."""
    size = file.seek(0, os.SEEK_END)
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > size:  # as those of a compressed one need not
                return False
            # torch.serialization.set_crc32_options(False) leaves all of them 0.
            return checked or not any(entry.CRC for entry in entries) or archive.testzip() is None
    except (zipfile.BadZipFile, zlib.error, RuntimeError, ValueError, EOFError, OverflowError):
        return False
