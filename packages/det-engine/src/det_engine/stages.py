"""What a person sees of the stages around a training, such as an evaluation: nothing of those that are over soon."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TextIO

from rich.console import Console

from det_engine import distributed
from det_engine.progress import Display, clock, in_notebook

_QUIET = 2.0
"""Seconds that a stage may last without a word."""
_REWRITTEN, _WRITTEN = 0.5, 30.0
"""Seconds between two states of a line that is written anew, and between two lines."""

_displays: list[Display] = []


@contextlib.contextmanager
def shown_by(display: Display) -> Iterator[None]:
    """A block whose stages are shown by the display of a training, which has the terminal."""
    _displays.append(display)
    try:
        yield
    finally:
        _displays.remove(display)


@contextlib.contextmanager
def stage(name: str, total: int | None = None, stream: TextIO | None = None) -> Iterator[Callable[[int], None]]:
    """A block that says how far it is once it has lasted two seconds, in the main process alone.

    A terminal and a notebook have one line, written anew; files and pipes have a line now and then.

    Args:
        name: what is done, such as `detecting`.
        total: how much there is to do, if that is known.
        stream: where it is written; None: the standard output.

    Yields:
        to be called with how much more is done.
    """
    progress = _Progress(name, total)
    if not distributed.is_main():
        yield progress.advance
        return
    output = _of_display(_displays[-1]) if _displays and stream is None else _of_stream(stream or sys.stdout)
    ended = threading.Event()
    teller = threading.Thread(target=_tell, args=(progress, output, ended), daemon=True)
    teller.start()
    try:
        yield progress.advance
    finally:
        ended.set()
        teller.join()


class _Progress:
    """How far a stage is."""

    def __init__(self, name: str, total: int | None) -> None:
        self._name, self._total, self._done = name, total, 0
        self._began = time.monotonic()

    def advance(self, count: int) -> None:
        """So much more is done."""
        self._done += count

    def text(self) -> str:
        """One line that says so."""
        seconds = time.monotonic() - self._began
        if self._total is None:
            return f"{self._name}: {clock(seconds)}"
        left = f"  ETA {clock(seconds / self._done * (self._total - self._done))}" if self._done else ""
        return f"{self._name}: {self._done:,}/{self._total:,}{left}"


@dataclass(frozen=True, slots=True)
class _Output:
    """Where the line goes.

    Attributes:
        write: shows a text; an empty one takes it away.
        seconds: between two calls.
    """

    write: Callable[[str], None]
    seconds: float


def _of_display(display: Display) -> _Output:
    return _Output(display.busy, _REWRITTEN if display.rewrites else _WRITTEN)


def _of_stream(stream: TextIO) -> _Output:
    console = Console(file=stream)
    if not (console.is_terminal or in_notebook()):
        return _Output(lambda text: print(text, file=stream, flush=True) if text else None, _WRITTEN)
    width = console.width - 1
    return _Output(lambda text: print(f"\r{text[:width]:<{width}}\r", end="", file=stream, flush=True), _REWRITTEN)


def _tell(progress: _Progress, output: _Output, ended: threading.Event) -> None:
    """Write now and then, until the stage has ended."""
    told = False
    while not ended.wait(output.seconds if told else _QUIET):
        output.write(progress.text())
        told = True
    if told:
        output.write("")
