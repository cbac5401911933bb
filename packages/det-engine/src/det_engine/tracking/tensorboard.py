"""A run in TensorBoard: event files in the run's own directory."""

import contextlib
import threading
from collections.abc import Iterator, Mapping

import numpy as np

from det_engine.errors import EngineError
from det_engine.run import RunDirectory


class TensorBoard:
    """Events in `tensorboard/` of a run; see `det_engine.tracking.Tracker`.

    Args:
        run: its directory.
        step: where it starts or goes on; events of later steps, left by an interrupted training, are hidden.
    """

    def __init__(self, run: RunDirectory, step: int) -> None:
        self._folder = run.tensorboard
        self._writer = run.summary_writer(step)
        self._hook, threading.excepthook = threading.excepthook, self._thread_failed

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write numbers.

        Raises:
            EngineError: the disk is full.
        """
        with self._on_disk():
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def pictures(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Write pictures, uint8 `[H, W, 3]` RGB.

        Raises:
            EngineError: the disk is full.
        """
        with self._on_disk():
            for name, picture in pictures.items():
                self._writer.add_image(name, picture, step, dataformats="HWC")

    def finish(self, status: str, results: Mapping[str, float]) -> None:  # noqa: ARG002
        """Close the files, which hold all that there is.

        Raises:
            EngineError: the training finished, and the disk is full.
        """
        finished = status == "finished"
        try:
            with contextlib.nullcontext() if finished else contextlib.suppress(EngineError), self._on_disk():
                self._writer.close()
        finally:
            threading.excepthook = self._hook

    def _thread_failed(self, failure: threading.ExceptHookArgs) -> None:
        # It writes in a thread, whose error comes with the next call too, and is told then.
        if not (isinstance(failure.exc_value, OSError) and type(failure.thread).__module__.startswith("tensorboard.")):
            self._hook(failure)

    @contextlib.contextmanager
    def _on_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise EngineError(f"Cannot write {self._folder}: {error.strerror or error}.") from error
