"""Locks between processes, which end with the process that holds them."""

from importlib import import_module
from typing import Any, BinaryIO

# One of the two is there; neither has types on the other's systems.
_posix: Any = None
_windows: Any = None
try:
    _posix = import_module("fcntl")
except ImportError:
    _windows = import_module("msvcrt")


def try_lock(file: BinaryIO) -> bool:
    """Lock a file until it is closed.

    Args:
        file: open for writing.

    Returns:
        whether it is locked now, or cannot be, on a file system without locks; False while another process holds it.
    """
    try:
        if _posix is not None:
            _posix.flock(file, _posix.LOCK_EX | _posix.LOCK_NB)
        else:
            file.seek(0)
            _windows.locking(file.fileno(), _windows.LK_NBLCK, 1)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True
    return True
