"""How a training is run, and what comes out of it."""

from dataclasses import dataclass
from typing import Any

from det_engine.errors import EngineError
from det_engine.precision import PrecisionName
from det_engine.progress import DisplayName


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSettings:
    """How a training is run; what it learns from is in `SolverConfig`.

    Attributes:
        precision: fp32, tf32, bf16 or fp16.
        loss_scale: constant loss scale of fp16; None: dynamic.
        log_interval: steps between two log lines, and between two reads from the device.
        checkpoint_interval: steps between two checkpoints; 0: only with evaluations and at the end.
        evaluation_interval: steps between two evaluations; 0: only at the end.
        best_metric: name of the evaluated metric that decides on `best.pt`, such as `bbox/AP`; None: the first one.
        best_is_highest: whether a higher value of it is better.
        seed: of every random number in the training, not negative.
        display: live, plain, none, or auto: live on a terminal, plain elsewhere.
    """

    precision: PrecisionName = "fp32"
    loss_scale: float | None = None
    log_interval: int = 20
    checkpoint_interval: int = 1000
    evaluation_interval: int = 0
    best_metric: str | None = None
    best_is_highest: bool = True
    seed: int = 0
    display: DisplayName = "auto"


def check_settings(settings: TrainSettings) -> None:
    """Raise `EngineError` naming the first number that makes no sense."""
    for name, least in (("log_interval", 1), ("checkpoint_interval", 0), ("evaluation_interval", 0), ("seed", 0)):
        if getattr(settings, name) < least:
            raise EngineError(f"Setting {name} must be at least {least}, got {getattr(settings, name)}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """What came out of a training.

    Attributes:
        steps: number of finished steps.
        metrics: last evaluation, flat (`bbox/AP`); empty without evaluation.
        best: `{"metric", "value", "step"}` of the best evaluation, or None.
        images_per_second: over all steps of the run, without evaluations and checkpoints.
        seconds: of all steps of the run, likewise.
    """

    steps: int
    metrics: dict[str, float]
    best: dict[str, Any] | None
    images_per_second: float
    seconds: float
