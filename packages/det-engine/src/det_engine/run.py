"""The directory of a run: what lies where, and who may write there."""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from det_engine.archive import is_whole
from det_engine.checkpoint import link
from det_engine.errors import EngineError
from det_engine.lock import FolderLock
from det_engine.plain import to_plain

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class RunDirectory:
    """Paths of a run.

    Make one with `create` (new) or `open` (to resume); the constructor only names paths. A run has one writer: who
    created it, or trains in it, holds it as long as the object lives.

    | path | content |
    |---|---|
    | `config.json`, `environment.json` | resolved configuration, what it ran on |
    | `metrics.jsonl` | a line per log interval and evaluation |
    | `tensorboard/` | the same as TensorBoard events |
    | `checkpoints/{last,previous,best}.pt` | to resume from; the one before; the best by the chosen metric |
    | `checkpoints/step-N.pt` | kept for good, where `TrainSettings.keep_interval` says so |
    | `failures/` | broken steps, to be repeated |
    | `results.json`, `predictions.json`, `pictures/` | final metrics, detections, drawings |
    | `curves.png` | losses and evaluations over the steps |
    | `report.html` | a page about the results, where there is one |
    | `trackers.json` | what services that follow the run call it |
    | `in-use.json` | which process writes, while it does |
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.environment = self.path / "environment.json"
        self.metrics = self.path / "metrics.jsonl"
        self.results = self.path / "results.json"
        self.predictions = self.path / "predictions.json"
        self.pictures = self.path / "pictures"
        self.tensorboard = self.path / "tensorboard"
        self.checkpoints = self.path / "checkpoints"
        self.last = self.checkpoints / "last.pt"
        self.previous = self.checkpoints / "previous.pt"
        self.best = self.checkpoints / "best.pt"
        self.failures = self.path / "failures"
        self.curves = self.path / "curves.png"
        self.report = self.path / "report.html"
        self.trackers = self.path / "trackers.json"
        self._lock: FolderLock | None = None

    def __str__(self) -> str:
        return str(self.path)

    @classmethod
    def create(
        cls, path: Path | str, *, config: Any, environment: Mapping[str, Any], replace: bool = False
    ) -> "RunDirectory":
        """Make the directory of a new run and write its configuration and environment.

        Args:
            path: a directory that does not exist or is empty.
            config: dataclass or mapping.
            environment: from `describe_environment`.
            replace: allow a directory that an earlier command wrote and that holds no checkpoint, such as the
                output of an evaluation.

        Raises:
            EngineError: the directory holds something already, is in use, or cannot be written.
        """
        run = cls(path)
        run._refuse_foreign()
        try:
            run.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EngineError(f"Cannot make the output directory {run}: {error.strerror or error}.") from error
        run.hold()
        run._refuse_foreign()  # once more: nobody else writes now
        if run.is_resumable:
            raise EngineError(
                f"Output {run} holds a run already. Resume it (train with resume={str(path)!r}), or name another."
            )
        if not replace and run.metrics.exists() and run.metrics.stat().st_size:
            raise EngineError(f"Output {run} holds a run without checkpoint already. Delete it or name another.")
        run.write_json(run.environment, environment)
        run.write_json(run.config, config)
        return run

    @classmethod
    def open(cls, path: Path | str) -> "RunDirectory":
        """The directory of an existing run, to resume it.

        Raises:
            EngineError: it is not there, or holds no checkpoint.
        """
        run = cls(path)
        if not run.path.is_dir():
            raise EngineError(f"There is no run to resume in {run}: no such directory.")
        if not run.is_resumable:
            raise EngineError(f"There is no run to resume in {run}: {run.last.relative_to(run.path)} is missing.")
        return run

    @property
    def is_resumable(self) -> bool:
        """Whether it holds a checkpoint to go on from."""
        return self.last.exists() or self.previous.exists()

    def repair(self, source: Path, *, is_best: bool) -> bool:
        """Complete what a process that was killed between two files left undone, before the run goes on.

        Args:
            source: the checkpoint that it goes on from.
            is_best: whether that one is the best so far.

        Returns:
            Whether the file of the best is there and whole.
        """
        for leftover in (*self.checkpoints.glob("*.writing"), *self.checkpoints.glob("*.linking")):
            leftover.unlink()
        if is_best and source.parent == self.checkpoints:
            link(source, self.best)
        return self.best.exists() and is_whole(self.best)

    def hold(self) -> None:
        """Be the one who writes here, for as long as this object lives.

        Raises:
            EngineError: another process is; the message says which, since when.
        """
        try:
            self._lock = FolderLock.of(self.path)
        except OSError as error:
            raise EngineError(f"Cannot write to the directory {self}: {error.strerror or error}.") from error

    def give_back(self) -> None:
        """Let others write here, although this object lives on."""
        if self._lock is not None:
            self._lock.give_back()
        self._lock = None

    def _refuse_foreign(self) -> None:
        """Refuse a directory with files in which no run began."""
        try:
            entries = sorted(entry.name for entry in self.path.iterdir()) if self.path.exists() else []
        except NotADirectoryError as error:
            raise EngineError(f"Output {self} is a file, a directory is expected.") from error
        except OSError as error:
            raise EngineError(f"Output {self} cannot be read: {error.strerror}.") from error
        # A command that was killed at its very beginning leaves no more than these.
        foreign = [name for name in entries if name not in (FolderLock.NAME, f"{self.environment.name}.writing")]
        if foreign and not self._is_ours():
            shown = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
            raise EngineError(
                f"Output {self} is not empty and is not the directory of a run (it holds {shown}). Name a new or an "
                f"empty directory; nothing was changed."
            )

    def _is_ours(self) -> bool:
        try:
            return json.loads(self.environment.read_text())["written_by"] == "det-engine"
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return False

    def write_json(self, path: Path, value: Any) -> None:
        """Write `value` (dataclasses, mappings, tensors, ... through `to_plain`) as JSON, whole or not at all.

        Raises:
            EngineError: the file cannot be written.
        """
        self.write(path, f"{json.dumps(to_plain(value), indent=2, ensure_ascii=False)}\n".encode())

    def write(self, path: Path, content: bytes) -> None:
        """Write a file, whole or not at all: what was there before stays until the new one is complete.

        Raises:
            EngineError: the file cannot be written.
        """
        temporary = path.with_name(f"{path.name}.writing")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.unlink(missing_ok=True)  # of an earlier process, or a link to who knows where
            with temporary.open("xb") as file:
                file.write(content)
            temporary.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise EngineError(f"Cannot write {path}: {error.strerror or error}.") from error

    def read_trackers(self) -> dict[str, str]:
        """What services that follow the run call it, by their names; empty for those that are new to it."""
        try:
            return {str(name): str(known) for name, known in json.loads(self.trackers.read_text()).items()}
        except (OSError, ValueError, AttributeError, RecursionError):
            return {}

    def remember_tracker(self, name: str, known: str) -> None:
        """Write down what a service calls the run.

        Raises:
            EngineError: the file cannot be written.
        """
        self.write_json(self.trackers, {**self.read_trackers(), name: known})

    def summary_writer(self, start_step: int = 0) -> "SummaryWriter":
        """TensorBoard writer; events of steps after `start_step`, left by an interrupted run, are hidden.

        Raises:
            EngineError: the folder cannot be written.
        """
        # Importing it takes a second that commands without training need not wait for.
        from torch.utils.tensorboard import SummaryWriter

        try:
            return SummaryWriter(str(self.tensorboard), purge_step=start_step + 1 if start_step else None)
        except OSError as error:
            raise EngineError(f"Cannot write {self.tensorboard}: {error.strerror or error}.") from error
