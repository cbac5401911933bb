"""What a person sees of a training: a live display on a terminal, one line in a notebook, plain lines elsewhere."""

import math
import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from det_engine.settings import DisplayName

_SECONDS = 0.25
"""Between two changes of the line in a notebook."""


class Display(Protocol):
    """What the training loop tells a display. No method may read from the device.

    Attributes:
        rewrites: whether a line can be replaced by the next one.
    """

    rewrites: bool

    def step(self, step: int) -> None:
        """A step ended; called for every step."""

    def losses(self, step: int, values: Mapping[str, float]) -> None:
        """The means of a log interval are known."""

    def note(self, text: str) -> None:
        """Something worth a line of its own happened."""

    def evaluated(self, seconds: float) -> None:
        """An evaluation took so long."""

    def busy(self, text: str) -> None:
        """How far a stage is that is no step, such as an evaluation; an empty text: it has ended."""

    def urgent(self, text: str) -> bool:
        """Whether it shows `text` soon without writing now, when a signal may have come in the middle of a line."""

    def close(self) -> None:
        """Training ended."""


def make_display(
    name: DisplayName, total: int, start: int = 0, stream: TextIO | None = None, interval: int | None = None
) -> Display:
    """Make the display called `name` for steps `start` to `total`.

    Args:
        name: live, line, plain, none; auto: a line in a notebook, live on a terminal, plain elsewhere.
        total: last step.
        start: steps finished before.
        stream: where it writes; None: the standard output.
        interval: steps between two evaluations, whose time is part of the time left; 0: there is one at the end, None:
            there are none.
    """
    if name == "auto" and stream is None and in_notebook():
        name = "line"
    stream = stream or sys.stdout
    if name == "auto":
        name = "live" if Console(file=stream).is_terminal else "plain"
    kinds = {"live": LiveDisplay, "line": LineDisplay, "plain": PlainDisplay, "none": NoDisplay}
    return kinds[name](total, start, stream, interval)


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this process, as opposed to a terminal or a script."""
    ipython: Any = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and type(shell).__name__ == "ZMQInteractiveShell"


class Remaining:
    """Estimates the time left from the steps and evaluations of this process, other breaks included.

    Args:
        total: last step.
        start: steps finished before.
        interval: steps between two evaluations; 0: there is one at the end, None: there are none.
    """

    def __init__(self, total: int, start: int, interval: int | None = None) -> None:
        self._total, self._start, self._interval = total, start, interval
        self._began = time.monotonic()
        self._evaluations: list[float] = []

    def evaluated(self, seconds: float) -> None:
        """An evaluation took so long."""
        self._evaluations.append(seconds)

    def at(self, step: int) -> str:
        """Time left as `h:mm:ss`, `?` before the first step; evaluations are named as long as none has been timed."""
        done, left = step - self._start, self._left(step)
        if done <= 0:
            return "?"
        inside = sum(self._evaluations)
        seconds = (time.monotonic() - self._began - inside) / done * (self._total - step)
        if self._evaluations:
            return clock(seconds + inside / len(self._evaluations) * left)
        return clock(seconds) + (f" + {left} evaluation{'s' * (left > 1)}" if left else "")

    def _left(self, step: int) -> int:
        """Evaluations after a step, of which the last comes at the end."""
        if self._interval is None:
            return 0
        following = range(self._interval, self._total, self._interval) if self._interval else ()
        return 1 + sum(due > step for due in following)


def clock(seconds: float) -> str:
    """Seconds as `h:mm:ss`."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def describe(values: Mapping[str, float]) -> str:
    """Losses, learning rate and speed in one line."""
    shown = [name for name in values if name.startswith("loss") or name == "grad_norm"]
    parts = [f"{name} {values[name]:.4f}" for name in shown if name != "loss_scale"]
    if "learning_rate" in values:
        parts.append(f"lr {values['learning_rate']:.3g}")
    if "images_per_second" in values:
        parts.append(f"{values['images_per_second']:.2f} img/s")
    if values.get("step_seconds"):
        waiting = values.get("data_seconds", 0.0) / values["step_seconds"]
        parts.append(f"data {waiting:.0%}")
    if values.get("peak_memory_mib"):
        parts.append(f"{values['peak_memory_mib']:.0f} MiB")
    return "  ".join(parts)


class NoDisplay:
    """Shows nothing."""

    rewrites = False

    def __init__(self, total: int, start: int, stream: TextIO, interval: int | None = None) -> None:
        self._total, self._stream = total, stream
        self._remaining = Remaining(total, start, interval)

    def step(self, step: int) -> None:
        """Nothing."""

    def losses(self, step: int, values: Mapping[str, float]) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def evaluated(self, seconds: float) -> None:
        """Count the time of an evaluation."""
        self._remaining.evaluated(seconds)

    def busy(self, text: str) -> None:
        """Nothing."""

    def urgent(self, text: str) -> bool:  # noqa: ARG002
        """False."""
        return False

    def close(self) -> None:
        """Nothing."""


class PlainDisplay(NoDisplay):
    """A line per log interval, for files and pipes."""

    def losses(self, step: int, values: Mapping[str, float]) -> None:
        """Print step, losses, speed and time left."""
        self.note(f"step {step}/{self._total}  {describe(values)}  ETA {self._remaining.at(step)}")

    def note(self, text: str) -> None:
        """Print `text`."""
        print(text, file=self._stream, flush=True)

    def busy(self, text: str) -> None:
        """Print `text`, if there is one."""
        if text:
            self.note(text)


class LineDisplay(NoDisplay):
    """One line that is written anew, for notebooks: step, time left and the losses of the last log interval."""

    rewrites = True

    def __init__(self, total: int, start: int, stream: TextIO, interval: int | None = None) -> None:
        super().__init__(total, start, stream, interval)
        self._losses = self._shown = ""
        self._written = -math.inf

    def step(self, step: int) -> None:
        """Write the line, if the last time is long enough ago."""
        now = time.monotonic()
        if now - self._written >= _SECONDS or step == self._total:
            self._written = now
            self._write(f"step {step}/{self._total}  {self._losses}ETA {self._remaining.at(step)}")

    def losses(self, step: int, values: Mapping[str, float]) -> None:
        """Write the line with other losses."""
        self._losses, self._written = f"{describe(values)}  ", -math.inf
        self.step(step)

    def note(self, text: str) -> None:
        """Print `text` in place of the line, which goes on below."""
        line = self._shown
        self._write(text)
        print(file=self._stream)
        self._shown = ""
        self._write(line)

    def busy(self, text: str) -> None:
        """Write `text` in place of the line."""
        self._write(text)

    def close(self) -> None:
        """End the line."""
        if self._shown:
            print(file=self._stream, flush=True)

    def _write(self, line: str) -> None:
        # What is left of a longer line is covered by blanks.
        print(f"\r{line:<{len(self._shown)}}", end="", file=self._stream, flush=True)
        self._shown = line


class LiveDisplay(NoDisplay):
    """A bar with step, elapsed time and time left, and below it the losses of the last log interval."""

    rewrites = True

    def __init__(self, total: int, start: int, stream: TextIO, interval: int | None = None) -> None:
        super().__init__(total, start, stream, interval)
        self._console = Console(file=stream)
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("ETA {task.fields[eta]}"),
            console=self._console,
            expand=True,
        )
        self._task = self._bar.add_task("training", total=total, completed=start, eta="?")
        self._below = self._urgent = ""
        self._live = Live(get_renderable=self._block, console=self._console, refresh_per_second=4)
        self._live.start()

    def _block(self) -> Group:
        return Group(self._bar, Text(self._below), *([Text(self._urgent)] if self._urgent else []))

    def step(self, step: int) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=step, eta=self._remaining.at(step))

    def losses(self, step: int, values: Mapping[str, float]) -> None:  # noqa: ARG002
        """Replace the losses."""
        self._below = describe(values)

    def note(self, text: str) -> None:
        """Print `text` above the bar."""
        self._console.print(Text(text))

    def evaluated(self, seconds: float) -> None:
        """Count the time of an evaluation; after the last there is nothing left."""
        super().evaluated(seconds)
        if self._bar.finished:
            self._bar.update(self._task, eta=clock(0))

    def busy(self, text: str) -> None:
        """Write `text` in place of the losses."""
        self._below = text

    def urgent(self, text: str) -> bool:
        """Write `text` below the losses when the block is drawn next."""
        self._urgent = text
        return self._live.is_started

    def close(self) -> None:
        """Leave the last state on the screen."""
        self._live.stop()
