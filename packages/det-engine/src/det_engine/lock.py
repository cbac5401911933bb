"""A folder has one writer: the process that holds the lock in it."""

import contextlib
import json
import os
import socket
import weakref
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from det_engine.errors import EngineError

try:
    import fcntl
except ImportError:  # Windows: an open file cannot be deleted there, which is the lock
    fcntl = None  # type: ignore[assignment]


class FolderLock:
    """The lock of a folder, a file in it that says who holds it; given back when the object is gone.

    The system gives it back when the process ends, however it ends, so what a killed process leaves is no obstacle. A
    process that asks again for what it holds gets the same lock. Processes that are forked do not hold it.

    Attributes:
        path: the file.
    """

    NAME = "in-use.json"
    """Name of the file."""
    _held: ClassVar["weakref.WeakValueDictionary[Path, FolderLock]"] = weakref.WeakValueDictionary()

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._end = weakref.finalize(self, _give_back, path, descriptor, os.getpid())

    @classmethod
    def of(cls, folder: Path) -> "FolderLock":
        """Take the lock of a folder that is there.

        Raises:
            EngineError: another process holds it; the message says which, since when.
            OSError: the folder cannot be written.
        """
        path = folder.resolve() / cls.NAME
        held = cls._held.get(path)
        if held is not None:
            return held
        descriptor = _locked(path)
        if descriptor is None:
            raise EngineError(
                f"The folder {folder} is in use: {_owner(path)}. Wait until it ends, stop it, or name another folder."
            )
        try:
            os.ftruncate(descriptor, 0)
            since = datetime.now().astimezone().isoformat(timespec="seconds")
            owner = {"process": os.getpid(), "machine": socket.gethostname(), "since": since}
            os.write(descriptor, json.dumps(owner).encode())
        except OSError:
            os.close(descriptor)
            raise
        lock = cls._held[path] = cls(path, descriptor)
        return lock

    def give_back(self) -> None:
        """Delete the file, and let others have the folder."""
        type(self)._held.pop(self.path, None)
        self._end()

    @classmethod
    def give_all_back(cls) -> None:
        """Give back every lock of this process, which is about to end."""
        for lock in list(cls._held.values()):
            lock.give_back()


def _locked(path: Path) -> int | None:
    """The descriptor of the locked file, or None where another process holds it."""
    while True:
        if fcntl is None:
            with contextlib.suppress(FileNotFoundError, PermissionError):
                path.unlink()
            with contextlib.suppress(FileExistsError, PermissionError):
                return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            return None
        if path.is_symlink():  # which none of ours is, to who knows where
            path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it may have deleted the file in between, and another process made a new one.
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
            os.close(descriptor)
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, BlockingIOError | PermissionError):
                return None
            raise


def _give_back(path: Path, descriptor: int, process: int) -> None:
    if os.getpid() != process:  # a forked copy of the object
        return
    if fcntl is None:
        os.close(descriptor)
    with contextlib.suppress(OSError):
        path.unlink()
    if fcntl is not None:
        os.close(descriptor)


def _owner(path: Path) -> str:
    """Who holds a lock, as its file says."""
    try:
        owner: Any = json.loads(path.read_text(encoding="utf-8"))
        return f"process {owner['process']} on {owner['machine']} has been writing there since {owner['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process is writing there"
