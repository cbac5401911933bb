"""What torch says where the system ended a process that loads images, put so that it says what to do."""

import contextlib
import re
from collections.abc import Iterator

from det_coco.errors import DataError

# Where the process waits for a batch, and from a handler of SIGCHLD, wherever the process is then.
_FROM_LOADER = re.compile(
    r"DataLoader worker .*(killed|exited)|shared memory|No space left on device|/dev/shm", re.IGNORECASE
)
_FROM_HANDLER = re.compile(r"DataLoader worker \(pid.*\) (is killed by signal|exited unexpectedly)")


@contextlib.contextmanager
def naming_ended_workers() -> Iterator[None]:
    """A block of a process whose loaders have workers, which the system may end whatever the block is doing.

    Raises:
        DataError: it ended one.
    """
    try:
        yield
    except RuntimeError as error:
        if not _FROM_HANDLER.match(str(error)):
            raise
        raise _ended(error) from error


def ended_worker(error: Exception) -> DataError | None:
    """What an error of a loader says of its workers, or None where it is about something else.

    Args:
        error: raised by a loader. A worker that ends while it hands over a batch breaks off the connection.
    """
    of_connection = isinstance(error, ConnectionError | EOFError)
    return _ended(error) if of_connection or _FROM_LOADER.search(str(error)) else None


def _ended(error: Exception) -> DataError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    # What a worker itself raised comes with its traceback, whose last line says what it was.
    reason = lines[-1 if lines[0].startswith("Caught ") else 0].rstrip(". ")
    return DataError(
        f"A worker process that loads images was ended ({reason}), which is what happens where memory, or shared "
        "memory (/dev/shm), is full: take fewer workers, or fewer or smaller images a batch."
    )
