"""Everything that a training is at a moment: what a checkpoint holds and a resume brings back."""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from det_engine import checkpoint, content
from det_engine.errors import EngineError
from det_engine.losses import LossRecord
from det_engine.optim import load_optimizer
from det_engine.plain import to_plain
from det_engine.random_state import capture_random_state, restore_random_state
from det_engine.run import RunDirectory
from det_engine.settings import TrainSettings
from det_engine.solver import SolverConfig
from det_engine.step import TrainStep

HELD_OUT = "held-out annotations"
"""Name of those surroundings of a training whose change makes evaluations incomparable."""
_NEEDED = ("model", "optimizer", "scaler", "random", "step", "losses", "evaluated_step", "history", "best", "seconds")
"""Entries without which a checkpoint cannot be resumed."""


class TrainingState:
    """Model, optimizer, loss scale, random numbers and counters of a training.

    Attributes:
        step: number of finished steps.
        evaluated_step: step of the last evaluation, 0 before the first.
        history: evaluations, flat, each with its `step`.
        best: `{"metric", "value", "step"}` of the best evaluation, or None.
        seconds: time of all finished steps, without evaluations and checkpoints.
        images: images of all finished steps.
        lr_factor: what rollbacks have left of the learning rate.
        failures: broken steps so far.
        finished: whether no step is left to make.
        resumed_from: the checkpoint that this training goes on from, or None.
        resumed_at_best: whether that one is the best so far.
    """

    def __init__(
        self,
        model: nn.Module,
        solver: SolverConfig,
        settings: TrainSettings,
        device: torch.device,
        batch_size: int,
        data_fingerprint: str,
        config: Any,
        surroundings: Mapping[str, str] | None = None,
    ) -> None:
        self.device = device
        self.settings = settings
        self.make_step = TrainStep(model, solver, settings, device)
        self.model = self.make_step.model
        self.record = LossRecord()
        self.batch_size = batch_size
        self.last_step = solver.steps
        self.data_fingerprint = data_fingerprint
        self.config = to_plain(config)
        self.surroundings = {
            "device": device.type,
            "torch": str(torch.__version__),
            "threads": str(torch.get_num_threads()),
            **(surroundings or {}),
        }
        self.step = 0
        self.evaluated_step = 0
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self.seconds = 0.0
        self.images = 0
        self.lr_factor = 1.0
        self.failures = 0
        self.finished = False
        self.resumed_from: Path | None = None
        self.resumed_at_best = False

    def averaged(self) -> AbstractContextManager[None]:
        """A block in which the model has its averaged weights, if there are any."""
        average = self.make_step.average
        return nullcontext() if average is None else average.applied()

    def state_dict(self) -> dict[str, Any]:
        """Content of a checkpoint; the losses must have been checked."""
        make_step = self.make_step
        return {
            "model": make_step.tensors(),
            "average": None if make_step.average is None else make_step.average.state_dict(),
            "optimizer": make_step.optimizer.state_dict(),
            "scaler": make_step.precision.state_dict(),
            "limit": make_step.guard.limit,
            "random": capture_random_state(self.device),
            "step": self.step,
            "losses": self.record.state_dict(),
            "evaluated_step": self.evaluated_step,
            "history": self.history,
            "best": self.best,
            "seconds": self.seconds,
            "images": self.images,
            "lr_factor": self.lr_factor,
            "failures": self.failures,
            "batch_size": self.batch_size,
            "seed": self.settings.seed,
            "data_fingerprint": self.data_fingerprint,
            "surroundings": self.surroundings,
            "config": self.config,
        }

    def resume(self, source: Path) -> list[str]:
        """Take over the state in a checkpoint.

        Args:
            source: a checkpoint, or the directory of a run: its last checkpoint, or, if that one is damaged, the one
                before.

        Returns:
            Lines to show: what was resumed, what could not be read, what changed in the configuration.

        Raises:
            EngineError: no checkpoint can be read, or it is of another model, other data or a longer training.
        """
        source = Path(source)
        run = RunDirectory(source)
        paths = [path for path in (run.last, run.previous) if path.exists()] if source.is_dir() else [source]
        state, path, notes = checkpoint.load_first(paths or [run.last])
        content.check_present(state, _NEEDED, path, "resumed")
        theirs = state.get("data_fingerprint", "")
        if theirs != self.data_fingerprint:
            raise EngineError(
                f"Checkpoint {path} was trained on other data (fingerprint {theirs or 'none'}, now "
                f"{self.data_fingerprint or 'none'}). Name the data of that run, or start a new run from its weights."
            )
        step, evaluated_step, line = self._in_own_steps(state)
        if step > self.last_step:
            raise EngineError(
                f"Checkpoint {path} is at step {step}, but the training ends at {self.last_step}. Take more "
                "solver.steps."
            )
        self._load(state, path)
        self.step, self.evaluated_step = step, evaluated_step
        self.resumed_from = path
        best = -1 if self.best is None else self.best["step"]
        self.resumed_at_best = best == state["step"] == state["evaluated_step"]
        if line:
            notes.append(line)
        notes.append(f"resumed from {path} at step {self.step}")
        old, new = _dotted(state.get("config")), _dotted(self.config)
        changed = [
            # What the checkpoint does not name came with a later version, and what is gone went with one.
            f"{name} {value} -> {new[name]}"
            for name, value in old.items()
            if name in new and new[name] != value
        ]
        if changed:
            notes.append(f"changed since that checkpoint: {', '.join(changed)}")
        notes += self._other_surroundings(state.get("surroundings", {}))
        return notes

    def _other_surroundings(self, then: Mapping[str, Any]) -> list[str]:
        """What is not as it was, though the configuration is, a line for each kind."""
        now = {name: value for name, value in self.surroundings.items() if then.get(name, value) != value}
        lines = []
        computing = [f"{name} {then[name]} -> {now[name]}" for name in ("device", "torch", "threads") if name in now]
        if computing:
            lines.append(
                f"computed otherwise than before that checkpoint ({', '.join(computing)}): sums are rounded in another "
                "way, so the numbers are not those of an uninterrupted training to the last bit"
            )
        data = [name for name in now if name not in ("device", "torch", "threads")]
        if data:
            lines.append(f"not what it was at that checkpoint: {', '.join(data)}")
        if HELD_OUT in data and self.best is not None:
            best, self.best = self.best, None
            lines.append(
                f"evaluations from here on cannot be compared with those before, so the best is chosen anew; it was "
                f"{best['metric']} {best['value']:.4f} at step {best['step']}"
            )
        return lines

    def _in_own_steps(self, state: Mapping[str, Any]) -> tuple[int, int, str]:
        """Step and evaluated step of a checkpoint in steps of this training's batch, and what to say about it."""
        step, evaluated, theirs = state["step"], state["evaluated_step"], state.get("batch_size", self.batch_size)
        if theirs == self.batch_size:
            return step, evaluated, ""
        own = round(step * theirs / self.batch_size)
        # An evaluation at that very step stays one at that very step.
        own_evaluated = own if evaluated == step else round(evaluated * theirs / self.batch_size)
        line = (
            f"a step has {self.batch_size} images now and had {theirs}: step {step} is now step {own}, which has seen "
            "as many; the learning rate is that of the new batch"
        )
        return own, own_evaluated, line

    def _load(self, state: Mapping[str, Any], path: Path) -> None:
        make_step = self.make_step
        tensors = state["model"]
        averages = {} if make_step.average is None else state.get("average") or {}
        bad = [name for part in (tensors, averages) for name, tensor in part.items() if not tensor.isfinite().all()]
        if bad:
            raise EngineError(
                f"Checkpoint {path} cannot be resumed: {len(bad)} of its tensors are not finite, such as {bad[0]}. Use "
                "an earlier one."
            )
        checkpoint.load_model(self.model, tensors, path)
        if make_step.masters is not None:
            make_step.masters.load(tensors)
        make_step.guard.statistics.take()
        if make_step.average is not None:
            # A run that goes on with an average had none before: it starts from these weights.
            average = state.get("average")
            with content.taking("average", path):
                make_step.average.load_state_dict(make_step.tensors() if average is None else average)
        with content.taking("optimizer", path):
            load_optimizer(make_step.optimizer, state["optimizer"], path)
        with content.taking("scaler", path):
            make_step.precision.load_state_dict(state["scaler"])
        make_step.guard.limit.fill_(float(state.get("limit", math.inf)))
        self.record.load_state_dict(state["losses"])
        with content.taking("random", path):
            restore_random_state(state["random"], self.device)
        self.history, self.best, self.seconds = list(state["history"]), state["best"], state["seconds"]
        self.images = state.get("images", state["step"] * self.batch_size)
        self.lr_factor, self.failures = state.get("lr_factor", 1.0), state.get("failures", 0)

    def go_back(self, path: Path) -> None:
        """Return to a checkpoint of this very training, with half the learning rate."""
        factor, failures = self.lr_factor, self.failures
        state = checkpoint.load(path)
        self._load(state, path)
        self.step, self.evaluated_step = state["step"], state["evaluated_step"]
        self.lr_factor, self.failures = factor / 2, failures


def _dotted(config: Any, prefix: str = "") -> dict[str, Any]:
    """A nested plain configuration as dotted names and values."""
    if not isinstance(config, Mapping):
        return {prefix: config} if prefix else {}
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat.update(_dotted(value, f"{prefix}.{name}" if prefix else name))
    return flat
