"""Files that a command will write, tried before its work."""

import tempfile
from pathlib import Path

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


def _cannot(path: Path, error: OSError) -> DataError:
    other = f" ({error.filename})" if error.filename not in (None, str(path), path) else ""
    return DataError(f"{path} cannot be written: {error.strerror or error}{other}.")
