"""Indexes that were read before, kept in the user's cache folder and mapped when they are needed again.

Two kinds of files lie in `<cache>/index`. A `.arrays` file holds an index and is named by a digest of the annotation
file it was read from and of our version: it can be damaged or missing, but never out of date. A `.key` file is named by
what the system says of an annotation file (path, size, times, inode) and holds that digest, which saves reading the
file; it also is the lock that lets one process read while the others wait.
"""

import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from det_coco.__about__ import __version__
from det_coco._json import FileText
from det_coco._locks import try_lock
from det_coco._mapped import map_arrays, write_arrays
from det_coco._packing import Packed, from_arrays, to_arrays
from det_coco.synthetic import cache_folder

_log = logging.getLogger("det_coco")

# The second number rises with every change of what is read from a file.
_VERSION = f"{__version__}-3"
# Smaller files are read as fast as they are looked up.
_LEAST_BYTES = 1 << 20
_MOST_BYTES = 8 << 30
# A file can change twice within a tick of the clock that its times come from.
_TICK_NS = 2_000_000_000
_LONGEST_WAIT = 600.0
_DAY = 86_400.0
_said: set[Path] = set()


def read_cached(file: Path, read: Callable[[FileText], Packed]) -> Packed:
    """Read an annotation file, or map what was read from the same content before.

    Args:
        file: the annotation file.
        read: reads its text.

    Returns:
        what `read` gives, its arrays mapped where they could be kept.

    Raises:
        DataError: see `CocoIndex.load`.
    """
    now, before = time.time_ns(), _stat(file)
    if before is None or before.st_size < _LEAST_BYTES or os.environ.get("DET_INDEX_CACHE") == "0":
        return read(FileText(file))
    folder = cache_folder().absolute() / "index"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _say(folder, error)
        return read(FileText(file))
    key = folder / f"{_name_of(file, before)}.key"
    known = _open_known(folder, key)
    if known is not None:
        return known
    with _locked(key) as lock:
        known = _open_known(folder, key)  # by another process meanwhile
        if known is not None:
            return known
        text = FileText(file)
        digest = text.digest(_VERSION)
        arrays = folder / f"{digest}.arrays"
        found = _open(arrays)
        if found is None:
            found = read(text)
            if found["crowd"].all():
                return found  # which may be refused, and is small
            found = _keep(arrays, found)
        after = _stat(file)
        unchanged = after is not None and _name_of(file, after) == _name_of(file, before)
        settled = max(before.st_mtime_ns, before.st_ctime_ns) < now - _TICK_NS
        if lock is not None and settled and unchanged:
            with suppress(OSError):
                lock.truncate(0)
                lock.write(digest.encode())
        return found


def _stat(file: Path) -> os.stat_result | None:
    try:
        return file.stat()
    except OSError:
        return None  # as whoever reads it will say


def _name_of(file: Path, stat: os.stat_result) -> str:
    told = (str(file.absolute()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_dev, stat.st_ino)
    return hashlib.blake2b(repr((told, _VERSION)).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def _open_known(folder: Path, key: Path) -> Packed | None:
    try:
        digest = key.read_bytes().decode("ascii")
    except (OSError, UnicodeDecodeError):
        return None
    return _open(folder / f"{digest}.arrays") if len(digest) == FileText.DIGITS and digest.isalnum() else None


def _open(arrays: Path, *, check: bool = True) -> Packed | None:
    """Map an index; None where there is none, or a damaged one."""
    try:
        found = from_arrays(*map_arrays(arrays, check=check))
    except OSError:
        return None
    except (ValueError, KeyError, TypeError):
        _log.info("%s is damaged and will be written again.", arrays)
        return None
    with suppress(OSError):
        os.utime(arrays)  # those used last are kept longest
    return found


def _keep(arrays: Path, found: Packed) -> Packed:
    """Write an index and map it; give it back as it is where that cannot be done."""
    made = None
    try:
        handle, name = tempfile.mkstemp(prefix=".", suffix=".partial", dir=arrays.parent)
        made = Path(name)
        with os.fdopen(handle, "w+b") as file:
            write_arrays(file, *to_arrays(found))
        made.chmod(0o644)  # temporary files are private
        made.replace(arrays)
        _make_room(arrays)
        return _open(arrays, check=False) or found
    except OSError as error:
        _say(arrays.parent, error)
        return found
    finally:
        if made is not None:
            with suppress(OSError):
                made.unlink(missing_ok=True)


def _make_room(newest: Path) -> None:
    """Remove what a killed process has left, keys of long ago, and the indexes used least recently."""
    now, total = time.time(), 0
    files = []
    for path in newest.parent.iterdir():
        with suppress(OSError):
            files.append((path.stat().st_mtime, path.stat().st_size, path))
    for used, size, path in sorted(files, reverse=True):
        old = {".partial": now - used > _DAY, ".key": now - used > 90 * _DAY}.get(path.suffix, False)
        if path.suffix == ".arrays":
            total += size
            old = total > _MOST_BYTES and path != newest
        if old:
            with suppress(OSError):
                path.unlink()


@contextmanager
def _locked(key: Path) -> Iterator[BinaryIO | None]:
    """Hold the lock of a key; without it where there are no locks, or another process has held it for very long."""
    try:
        lock = key.open("a+b")
    except OSError:
        yield None
        return
    with lock:
        until = time.monotonic() + _LONGEST_WAIT
        while not try_lock(lock) and time.monotonic() < until:
            time.sleep(0.05)
        yield lock


def _say(folder: Path, error: OSError) -> None:
    """Say, once for a folder, that nothing can be kept in it."""
    if folder not in _said:
        _said.add(folder)
        _log.warning(
            "Nothing can be kept in the cache folder %s (%s), so each process reads large annotation files anew. "
            "Set DET_CACHE to a folder that can be written.",
            folder, error.strerror or error,
        )  # fmt: skip
