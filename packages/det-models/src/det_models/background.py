"""Stages of a pipeline, each in a thread of its own.

Reading, drawing and writing pictures take longer than a fast network; run side by side, only the slowest counts.
"""

from collections.abc import Iterable, Iterator
from queue import Full, Queue
from threading import Event, Thread
from typing import TypeVar

T = TypeVar("T")
_WAIT = 0.1


def background(items: Iterable[T], ahead: int = 4) -> Iterator[T]:
    """The same items in the same order, made in another thread.

    An error in making them is raised where they are taken. Whoever stops taking them ends the thread, and with it those
    that `items` may have started.

    Args:
        items: made in the thread; may itself come from `background`.
        ahead: how many items wait at most.
    """
    waiting: Queue[tuple[T] | BaseException | None] = Queue(ahead)
    stopped = Event()

    def hand_over(entry: tuple[T] | BaseException | None) -> bool:
        while not stopped.is_set():
            try:
                waiting.put(entry, timeout=_WAIT)
            except Full:
                continue
            return True
        return False

    def work() -> None:
        iterator = iter(items)
        last: BaseException | None = None
        try:
            for item in iterator:
                if not hand_over((item,)):
                    break
        except BaseException as error:
            last = error
        if hasattr(iterator, "close"):
            iterator.close()
        hand_over(last)

    thread = Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            entry = waiting.get()
            if entry is None:
                return
            if isinstance(entry, BaseException):
                raise entry
            yield entry[0]
    finally:
        stopped.set()
        # One that waits for its source, such as a camera, ends with the next item.
        thread.join(timeout=5)
