"""Graceful stop: the first signal asks, the second does not wait."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from det_engine.launching import LAUNCHED

# SIGHUP: the terminal was closed; Windows has none.
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_ECHO = 3.0  # seconds
_SHOW_CURSOR = b"\x1b[?25h"


class StopRequested(BaseException):
    """Raised inside `StopSignals.immediately` when a signal comes."""


class Ended(BaseException):
    """Raised inside `ending_in_order` when a signal comes; holds its number."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(f"ended by {signal.Signals(number).name}")


@contextlib.contextmanager
def ending_in_order() -> Iterator[None]:
    """A block that SIGTERM and SIGHUP leave as Ctrl-C does: what was found so far is kept, what was temporary goes.

    A second signal ends the process at once. Processes that are forked within it end as ever.

    Raises:
        Ended: a signal came.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    process, came = os.getpid(), False

    def handle(number: int, _: FrameType | None) -> None:
        nonlocal came
        if came or os.getpid() != process:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        came = True
        raise Ended(number)

    # One that is ignored, as SIGHUP is under `nohup`, stays so.
    taken = [number for number in _SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


class StopSignals:
    """Turns SIGINT (Ctrl-C), SIGTERM and SIGHUP (a closed terminal) into a request that the training loop looks at.

    A second signal ends the process at once, with 128 + its number. One that is ignored, as SIGHUP is under `nohup`,
    stays so. Outside the main thread it does nothing.

    Attributes:
        requested: number of the signal that came, or None.
        show: shows a line from within the handler, and returns whether it did; else the line goes to stderr, in whose
            place on a terminal a live display would be drawn.
    """

    def __init__(self) -> None:
        self.requested: int | None = None
        self.show: Callable[[str], bool] = lambda _: False
        self._raise_now = False
        self._first = 0.0
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for number in (n for n in _SIGNALS if signal.getsignal(n) != signal.SIG_IGN):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous.clear()

    @contextlib.contextmanager
    def immediately(self) -> Iterator[None]:
        """A block, such as an evaluation, that a signal leaves at once.

        Raises:
            StopRequested: a signal came, before or within the block.
        """
        self._raise_now = True
        try:
            if self.requested is not None:
                raise StopRequested
            yield
        finally:
            self._raise_now = False

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.requested is not None:
            # A terminal that is closed says so to its shell too, and a launcher passes on what all have got.
            again = number == getattr(signal, "SIGHUP", None) or LAUNCHED in os.environ
            if again and time.monotonic() - self._first < _ECHO:
                return
            _write(b"\n" + (_SHOW_CURSOR if sys.stderr.isatty() else b""))
            os._exit(128 + number)
        self.requested, self._first = number, time.monotonic()
        line = "stopping after this step and a checkpoint; once more to leave at once"
        if not self.show(line):
            _write(f"\n{line}\n".encode())
        if self._raise_now:
            raise StopRequested


def _write(text: bytes) -> None:
    # Not print: the signal may have come in the middle of one.
    with contextlib.suppress(OSError):
        os.write(2, text)
