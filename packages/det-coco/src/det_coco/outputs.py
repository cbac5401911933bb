"""Files that are written: tried before the work for them, and whole or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from det_coco.errors import DataError


def try_files(*files: Path | None) -> None:
    """Refuse files that cannot be written; their folders are made, and files that exist stay as they are.

    Args:
        *files: what will be written; None is nothing.

    Raises:
        DataError: a file cannot be written.
    """
    for file in files:
        if file is None or (file.exists() and not file.is_file() and not file.is_dir()):  # a pipe or a device
            continue
        new = not file.exists()
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("ab"):
                pass
            if new:
                file.unlink()
        except OSError as error:
            raise _cannot(file, error) from None


def try_folder(folder: Path, remedy: str) -> None:
    """Refuse a folder that holds something, or that nothing can be written to; the folders above it are made.

    Args:
        folder: what will be filled.
        remedy: a sentence that says what to do where it holds something.

    Raises:
        DataError: it is no folder, is not empty, or cannot be written.
    """
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise DataError(f"{folder} exists already. {remedy}")
        new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        if new:
            folder.rmdir()
    except OSError as error:
        raise _cannot(folder, error) from None


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write in a block, which takes its place when the block ends; what was there before stays until then.

    Args:
        path: the file; its folder is made. A pipe or a device is written directly, a link stays one.

    Raises:
        DataError: it cannot be written, as on a full disk; nothing is left of it.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            with path.open("wb") as file:
                yield file
            return
        target = path.resolve()
        temporary = target.with_name(f"{target.name}.writing")
        temporary.unlink(missing_ok=True)  # of an earlier process, or a link to who knows where
        with temporary.open("xb") as file:
            yield file
            if not _is_named(file, temporary):
                temporary = None
                raise DataError(f"{path} is being written by another process too. Name another file, or wait for it.")
        temporary.replace(target)
    except OSError as error:
        raise _cannot(path, error) from None
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def _is_named(file: BinaryIO, path: Path) -> bool:
    """Whether an open file still has its name, which another process that writes the same would have taken."""
    return path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())


@contextlib.contextmanager
def filled(folder: Path) -> Iterator[None]:
    """A block that fills a folder, which `try_folder` has found empty; where that fails, nothing of it stays.

    Args:
        folder: the folder.

    Raises:
        DataError: it cannot be written, as on a full disk.
    """
    try:
        yield
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise _cannot(folder, error) from None
    except DataError:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _cannot(path: Path, error: OSError) -> DataError:
    file = error.filename2 or error.filename  # of two, the one that is written
    other = f" ({file})" if file not in (None, str(path), path) else ""
    return DataError(f"{path} cannot be written: {error.strerror or error}{other}.")
