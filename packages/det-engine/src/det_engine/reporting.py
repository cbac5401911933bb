"""Where the numbers of a training go: `metrics.jsonl`, trackers and the display, from one place."""

import contextlib
import errno
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import torch

from det_engine import distributed
from det_engine.device import peak_memory_mib
from det_engine.errors import EngineError, Interrupted
from det_engine.metrics import MetricsLog
from det_engine.progress import make_display
from det_engine.run import RunDirectory
from det_engine.stages import shown_by
from det_engine.state import TrainingState
from det_engine.tables import table
from det_engine.tracking import Status, Trackers

Draw = Callable[[], Mapping[str, np.ndarray]]


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds of a step, and what they went into.

    Attributes:
        whole: from the request for data to the end of what the host does.
        data: until the data came.
        host: until the step was launched; on the CPU that is the step itself.
        device: two events around the step's kernels, None on the CPU.
    """

    whole: float
    data: float
    host: float
    device: tuple[Any, Any] | None


class Clock:
    """Times steps without waiting for the device."""

    def __init__(self, device: torch.device) -> None:
        self._module = None if device.type == "cpu" else torch.get_device_module(device)
        self._began = self._data = self._host = 0.0
        self._events: tuple[Any, Any] | None = None

    def start(self) -> None:
        """A step begins by asking for data."""
        self._began = self._data = self._host = time.perf_counter()

    def data_came(self) -> None:
        """The data are there."""
        self._data = time.perf_counter()
        if self._module is not None:
            self._events = (self._module.Event(enable_timing=True), self._module.Event(enable_timing=True))
            self._events[0].record()

    def launched(self) -> None:
        """Everything that the device shall do was said."""
        self._host = time.perf_counter()
        if self._events is not None:
            self._events[1].record()

    def stop(self) -> StepTime:
        """The step is over."""
        whole = time.perf_counter() - self._began
        return StepTime(whole, self._data - self._began, self._host - self._data, self._events)


class Reporter:
    """Writes a training's numbers; a context manager that opens and closes what it writes to.

    Only the main process writes; the others count their time.

    Args:
        run: the run's directory.
        state: the training, at the step where it starts or goes on.
        pictures: draws what the last evaluation found, uint8 `[H, W, 3]` by name.
        evaluates: whether there are evaluations.
    """

    def __init__(
        self, run: RunDirectory, state: TrainingState, pictures: Draw | None = None, *, evaluates: bool = False
    ) -> None:
        self._state, self._run, self._pictures = state, run, pictures
        self._times: list[StepTime] = []
        self._is_main = distributed.is_main()
        if self._is_main:
            self._log = MetricsLog(run.metrics, state.step, state.evaluated_step)
        self._display = make_display(
            state.settings.display if self._is_main else "none",
            state.last_step,
            state.step,
            interval=state.settings.evaluation_interval if evaluates else None,
        )
        self._stages = shown_by(self._display)
        if self._is_main:
            self._trackers = Trackers(run, state.step, state.config, state.settings.trackers, self.note)
        if self._is_main and self._log.damaged:
            self.note(f"{self._log.damaged} damaged lines of {run.metrics.name} are set aside in metrics.damaged.jsonl")

    def __enter__(self) -> "Reporter":
        self._stages.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stages.__exit__(None, None, None)
        try:
            if self._is_main:
                self._log.close()
                self._trackers.finish(_status(error), _results(self._state))
        finally:
            with _shown():
                self._display.close()

    def urgent(self, text: str) -> bool:
        """Whether the display shows a line that a signal brings, which must not be written now."""
        return self._display.urgent(text)

    def rewind(self) -> None:
        """Forget the lines after the state's step, from which the training goes on."""
        self._times = []
        if self._is_main:
            self._log.close()
            self._log = MetricsLog(self._run.metrics, self._state.step, self._state.evaluated_step)

    def note(self, text: str) -> None:
        """Show a line."""
        with _shown():
            self._display.note(text)

    def step(self, times: StepTime) -> float:
        """A step ended; its seconds."""
        self._times.append(times)
        with _shown():
            self._display.step(self._state.step)
        return times.whole

    def interval(self, losses: Mapping[str, float], lr: float) -> None:
        """The losses of the steps since the last call are known, so they are done; `lr` is the last one's."""
        state, times = self._state, self._times
        self._times = []
        if not self._is_main:
            return
        seconds = sum(step.whole for step in times)
        values = dict(losses)
        values["learning_rate"] = lr
        values["images_per_second"] = state.batch_size * len(times) / seconds
        values["step_seconds"] = seconds / len(times)
        values["data_seconds"] = sum(step.data for step in times) / len(times)
        values["host_seconds"] = sum(step.host for step in times) / len(times)
        events = [step.device for step in times if step.device is not None]
        if events:
            values["device_seconds"] = sum(first.elapsed_time(last) for first, last in events) / 1000 / len(events)
        scale = state.make_step.precision.scale()
        if scale is not None:
            values["loss_scale"] = scale
        memory = peak_memory_mib(state.device)
        if memory is not None:
            values["peak_memory_mib"] = memory
        self._write("train", values)
        with _shown():
            self._display.losses(state.step, values)

    def evaluation(self, metrics: Mapping[str, float], seconds: float) -> None:
        """An evaluation took `seconds`."""
        if not self._is_main:
            return
        self._write("evaluation", {**metrics, "seconds": seconds})
        if self._pictures is not None:
            found = self._pictures()
            if not isinstance(found, Mapping):
                raise EngineError(f"pictures must return pictures by name, got {type(found).__name__}.")
            drawn = {f"predictions/{name}": picture for name, picture in found.items()}
            self._trackers.pictures(self._state.step, drawn)
        self._display.evaluated(seconds)
        self.note(f"step {self._state.step}: evaluated in {seconds:.1f} s\n{table(metrics)}")

    def _write(self, kind: str, values: Mapping[str, float]) -> None:
        self._log.write(kind, self._state.step, values)
        self._trackers.scalars(self._state.step, {f"{kind}/{name}": value for name, value in values.items()})


def _status(error: BaseException | None) -> Status:
    """How a training ended."""
    if error is None:
        return "finished"
    return "stopped" if isinstance(error, Interrupted | KeyboardInterrupt) else "failed"


def _results(state: TrainingState) -> dict[str, float]:
    """The last evaluation and the best."""
    results = {name: value for name, value in (state.history[-1] if state.history else {}).items() if name != "step"}
    if state.best is not None:
        results |= {f"best/{state.best['metric']}": state.best["value"], "best/step": state.best["step"]}
    return results


@contextlib.contextmanager
def _shown() -> Iterator[None]:
    """A block that writes to the terminal, if there still is one: a training does not end because it was closed."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EIO:
            raise
