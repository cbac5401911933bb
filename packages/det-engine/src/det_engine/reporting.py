"""Where the numbers of a training go: `metrics.jsonl`, TensorBoard and the display, from one place."""

from collections.abc import Mapping
from types import TracebackType

from det_engine.device import peak_memory_mib
from det_engine.metrics import MetricsLog
from det_engine.progress import make_display
from det_engine.run import RunDirectory
from det_engine.state import TrainingState


class Reporter:
    """Writes a training's numbers; a context manager that opens and closes what it writes to.

    Args:
        run: the run's directory.
        state: the training, at the step where it starts or goes on.
        batch_size: images a step.
    """

    def __init__(self, run: RunDirectory, state: TrainingState, batch_size: int) -> None:
        self._state = state
        self._batch_size = batch_size
        self._steps, self._seconds, self._waited = 0, 0.0, 0.0
        self._log = MetricsLog(run.metrics, state.step, state.evaluated_step)
        self._writer = run.summary_writer(state.step)
        self._display = make_display(state.settings.display, state.last_step, state.step)

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._display.close()
        self._writer.close()
        self._log.close()

    def note(self, text: str) -> None:
        """Show a line."""
        self._display.note(text)

    def step(self, seconds: float, waited: float) -> None:
        """A step ended after `seconds`, of which `waited` passed before its data came."""
        self._steps += 1
        self._seconds += seconds
        self._waited += waited
        self._display.step(self._state.step)

    def interval(self, losses: Mapping[str, float], lr: float) -> None:
        """The losses of the steps since the last call are known; `lr` is the last one's learning rate."""
        state = self._state
        values = dict(losses)
        values["learning_rate"] = lr
        values["images_per_second"] = self._batch_size * self._steps / self._seconds
        values["step_seconds"] = self._seconds / self._steps
        values["data_seconds"] = self._waited / self._steps
        scale = state.precision.scale()
        if scale is not None:
            values["loss_scale"] = scale
        memory = peak_memory_mib(state.device)
        if memory is not None:
            values["peak_memory_mib"] = memory
        self._steps, self._seconds, self._waited = 0, 0.0, 0.0
        self._write("train", values)
        self._display.losses(state.step, values)

    def evaluation(self, metrics: Mapping[str, float], seconds: float) -> None:
        """An evaluation took `seconds`."""
        self._write("evaluation", {**metrics, "seconds": seconds})
        # What has a second slash, such as the AP of a class, is a detail for the files.
        shown = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items() if name.count("/") < 2)
        self._display.note(f"step {self._state.step}: {shown}  ({seconds:.1f} s)")

    def _write(self, kind: str, values: Mapping[str, float]) -> None:
        self._log.write(kind, self._state.step, values)
        for name, value in values.items():
            self._writer.add_scalar(f"{kind}/{name}", value, self._state.step)
