"""Everything that a training is at a moment: what a checkpoint holds and a resume brings back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from det_engine import checkpoint
from det_engine.errors import EngineError
from det_engine.losses import LossRecord
from det_engine.optim import build_optimizer
from det_engine.plain import to_plain
from det_engine.precision import Precision
from det_engine.random_state import capture_random_state, restore_random_state
from det_engine.run import RunDirectory
from det_engine.settings import TrainSettings
from det_engine.solver import SolverConfig

_NEEDED = ("model", "optimizer", "scaler", "random", "step", "losses", "evaluated_step", "history", "best", "seconds")


class TrainingState:
    """Model, optimizer, loss scale, random numbers and counters of a training.

    Attributes:
        step: number of finished steps.
        evaluated_step: step of the last evaluation, 0 before the first.
        history: evaluations, flat, each with its `step`.
        best: `{"metric", "value", "step"}` of the best evaluation, or None.
        seconds: time of all finished steps, without evaluations and checkpoints.
    """

    def __init__(
        self,
        model: nn.Module,
        solver: SolverConfig,
        settings: TrainSettings,
        device: torch.device,
        data_fingerprint: str,
        config: Any,
    ) -> None:
        self.device = device
        self.settings = settings
        self.precision = Precision(settings.precision, device, settings.loss_scale)
        self.model = model.to(device)
        self.optimizer = build_optimizer(self.model, solver)
        self.record = LossRecord(("grad_norm",) if solver.clip_norm is not None else ())
        self.last_step = solver.steps
        self.data_fingerprint = data_fingerprint
        self.config = to_plain(config)
        self.step = 0
        self.evaluated_step = 0
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self.seconds = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Content of a checkpoint; the losses must have been checked."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.precision.state_dict(),
            "random": capture_random_state(self.device),
            "step": self.step,
            "losses": self.record.state_dict(),
            "evaluated_step": self.evaluated_step,
            "history": self.history,
            "best": self.best,
            "seconds": self.seconds,
            "seed": self.settings.seed,
            "data_fingerprint": self.data_fingerprint,
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
        missing = [key for key in _NEEDED if key not in state]
        if missing:
            raise EngineError(f"Checkpoint {path} cannot be resumed: it holds no {', '.join(missing)}.")
        theirs = state.get("data_fingerprint", "")
        if theirs != self.data_fingerprint:
            raise EngineError(
                f"Checkpoint {path} was trained on other data (fingerprint {theirs or 'none'}, now "
                f"{self.data_fingerprint or 'none'}). Name the data of that run, or start a new run from its weights."
            )
        if state["step"] > self.last_step:
            raise EngineError(
                f"Checkpoint {path} is at step {state['step']}, but the training ends at {self.last_step}."
            )
        checkpoint.load_model(self.model, state["model"], path)
        checkpoint.load_optimizer(self.optimizer, state["optimizer"], path)
        self.precision.load_state_dict(state["scaler"])
        self.record.load_state_dict(state["losses"])
        restore_random_state(state["random"], self.device)
        self.step, self.evaluated_step = state["step"], state["evaluated_step"]
        self.history, self.best, self.seconds = state["history"], state["best"], state["seconds"]
        notes.append(f"resumed from {path} at step {self.step}")
        old, new = _dotted(state.get("config")), _dotted(self.config)
        changed = [
            f"{name} {old.get(name)} -> {new.get(name)}" for name in {**old, **new} if old.get(name) != new.get(name)
        ]
        if changed:
            notes.append(f"changed since that checkpoint: {', '.join(changed)}")
        return notes


def _dotted(config: Any, prefix: str = "") -> dict[str, Any]:
    """A nested plain configuration as dotted names and values."""
    if not isinstance(config, Mapping):
        return {prefix: config} if prefix else {}
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat.update(_dotted(value, f"{prefix}.{name}" if prefix else name))
    return flat
