"""Where a run is followed: TensorBoard always, and services that the user names, through one small interface."""

import importlib.util
import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import numpy as np

from det_engine.errors import EngineError
from det_engine.run import RunDirectory
from det_engine.settings import TrackerName
from det_engine.tracking.tensorboard import TensorBoard

Status = Literal["finished", "stopped", "failed"]
_PATIENCE = 60.0
"""Seconds that a tracker may take at the end of a training to send what it still has."""


class Tracker(Protocol):
    """What follows a run. Steps may come again, where a training goes on from an earlier checkpoint."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Take numbers by name, such as `train/loss` and `evaluation/bbox/AP`."""

    def pictures(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Take pictures by name, uint8 `[H, W, 3]` RGB."""

    def finish(self, status: Status, results: Mapping[str, float]) -> None:
        """The training ended; the last evaluation, and the best value under `best/`."""


def check_installed(names: tuple[str, ...]) -> None:
    """Refuse trackers whose package is missing, before anything was trained.

    Args:
        names: of the trackers.

    Raises:
        EngineError: one is missing; says how to install it.
    """
    for name in names:
        if not _is_installed(name):
            raise EngineError(f"The tracker {name} is not installed: pip install 'det-engine[{name}]'.")


def _is_installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


class Trackers:
    """All that follow a run.

    Services work in threads of their own, so that a slow one delays no step. One that fails is left out from there on,
    which is said once: the numbers are in `metrics.jsonl` too. TensorBoard's files are the run's own, and fail as those
    do.

    Args:
        run: its directory, which holds what the services call it.
        step: where it starts or goes on.
        config: plain values.
        names: of the services.
        note: shows a line.
    """

    def __init__(
        self, run: RunDirectory, step: int, config: Any, names: tuple[TrackerName, ...], note: Callable[[str], None]
    ) -> None:
        self._tensorboard = TensorBoard(run, step)
        self._services = [_Service(name, run, config, note) for name in names]

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Give numbers to all.

        Raises:
            EngineError: TensorBoard's files cannot be written.
        """
        for tracker in (*self._services, self._tensorboard):
            tracker.scalars(step, values)

    def pictures(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Give pictures to all.

        Raises:
            EngineError: TensorBoard's files cannot be written.
        """
        for tracker in (*self._services, self._tensorboard):
            tracker.pictures(step, pictures)

    def finish(self, status: Status, results: Mapping[str, float]) -> None:
        """Tell all how the training ended, and wait until they have sent what they have.

        Raises:
            EngineError: the training ended well, but TensorBoard's files cannot be written.
        """
        for service in self._services:
            service.finish(status, results)
        self._tensorboard.finish(status, results)


class _Service:
    """A tracker in a thread of its own."""

    def __init__(self, name: TrackerName, run: RunDirectory, config: Any, note: Callable[[str], None]) -> None:
        self._name, self._note = name, note
        self._waiting: queue.SimpleQueue[Callable[[Tracker], None] | None] = queue.SimpleQueue()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._work, args=(run, config), name=f"tracker {name}", daemon=True)
        self._thread.start()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._do(lambda tracker: tracker.scalars(step, values))

    def pictures(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        self._do(lambda tracker: tracker.pictures(step, pictures))

    def finish(self, status: Status, results: Mapping[str, float]) -> None:
        self._do(lambda tracker: tracker.finish(status, results))
        self._waiting.put(None)
        self._thread.join(_PATIENCE)
        if self._thread.is_alive():
            self._note(
                f"the tracker {self._name} has not taken all in {_PATIENCE:.0f} s, and is left behind; all numbers are "
                "in metrics.jsonl"
            )
        self._tell()

    def _do(self, action: Callable[[Tracker], None]) -> None:
        self._tell()
        if self._thread.is_alive():
            self._waiting.put(action)

    def _tell(self) -> None:
        """Say once that it failed; from here, as displays belong to the training's thread."""
        if self._failure is not None:
            error, self._failure = self._failure, None
            lines = str(error).strip().splitlines() or [""]
            self._note(
                f"the tracker {self._name} failed, and follows no more ({type(error).__name__}: {lines[0]}); all "
                "numbers are in metrics.jsonl"
            )

    def _work(self, run: RunDirectory, config: Any) -> None:
        try:
            tracker = _open(self._name, run, config)
            for action in iter(self._waiting.get, None):
                action(tracker)
        except Exception as error:  # whatever a client raises; `_tell` says it
            self._failure = error


def _open(name: TrackerName, run: RunDirectory, config: Any) -> Tracker:
    """Open a run with a service, the one that it had before if it goes on; importing a service takes seconds."""
    known = run.read_trackers().get(name)
    if name == "wandb":
        from det_engine.tracking.wandb import Wandb as Opened
    elif name == "mlflow":
        from det_engine.tracking.mlflow import MLflow as Opened
    else:
        from det_engine.tracking.clearml import ClearML as Opened
    tracker = Opened(run, config, known)
    run.remember_tracker(name, tracker.identifier)
    return tracker
