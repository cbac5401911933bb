"""How a training is run, and what comes out of it."""

from dataclasses import dataclass, field
from typing import Any, Literal

from det_engine.errors import EngineError

PrecisionName = Literal["fp32", "tf32", "bf16", "fp16", "O0", "O1", "O2"]
PRECISIONS: tuple[PrecisionName, ...] = ("fp32", "tf32", "bf16", "fp16", "O0", "O1", "O2")
DisplayName = Literal["auto", "live", "line", "plain", "none"]
TrackerName = Literal["wandb", "mlflow", "clearml"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSettings:
    """How a training is run: number format, intervals, checkpoints, failures.

    Attributes:
        precision: number format: fp32 (O0), tf32, bf16, fp16 (O1), or O2; --precision for short.
        loss_scale: constant loss scale of fp16, O1 and O2; None: dynamic; --loss-scale for short.
        accumulate: number of micro-batches into which a process's images of a step are divided, to save memory
            (gradient accumulation).
        log_interval: steps between two log lines, and between two reads from the device.
        checkpoint_interval: steps between two checkpoints; 0: only with evaluations and at the end.
        keep_interval: steps between two checkpoints that are kept for good, as `step-N.pt`; 0: none is.
        evaluation_interval: steps between two evaluations; 0: only at the end.
        best_metric: name of the metric that decides which checkpoint is `best.pt`, such as `bbox/AP`; None: the first.
        best_is_highest: whether a higher value of it is better.
        patience: number of evaluations in a row without a new best after which the training ends; 0: never.
        validation_batches: batches of held-out images whose losses are part of an evaluation; 0: none.
        freeze: patterns for the names of parameters that are not trained, such as `backbone.*`; a frozen batch norm
            keeps its statistics too.
        on_failure: what to do after a loss that is not finite, or explodes, has been explained: stop the training, skip
            the step, or go back (rollback) to the last checkpoint with half the learning rate.
        explosion: a loss that is this many times the first one (or larger than this number) explodes; 0: none does.
        capture: replay the step from captured graphs on CUDA and NPU, one for each shape of a batch.
        hang_seconds: seconds without a sign of life of a process, or of the data workers of the only one, after which
            the training is ended.
        seed: seed of every random number in the training, not negative.
        trackers: services that follow the run beside TensorBoard: wandb, mlflow, clearml; --tracker for short.
        display: live, line, plain, none, or auto: live on a terminal, a line in a notebook, plain elsewhere.

    Raises:
        EngineError: a number makes no sense; names the first.
    """

    precision: PrecisionName = field(default="fp32", metadata={"aliases": ("--precision",)})
    loss_scale: float | None = field(default=None, metadata={"aliases": ("--loss-scale",)})
    accumulate: int = 1
    log_interval: int = 20
    checkpoint_interval: int = 1000
    keep_interval: int = 0
    evaluation_interval: int = 0
    best_metric: str | None = None
    best_is_highest: bool = True
    patience: int = 0
    validation_batches: int = 0
    freeze: tuple[str, ...] = ()
    on_failure: Literal["stop", "skip", "rollback"] = "stop"
    explosion: float = 1000.0
    capture: bool = False
    hang_seconds: float = 900.0
    seed: int = 0
    trackers: tuple[TrackerName, ...] = field(default=(), metadata={"aliases": ("--tracker",)})
    display: DisplayName = "auto"

    def __post_init__(self) -> None:
        floors = {
            "accumulate": 1,
            "log_interval": 1,
            "checkpoint_interval": 0,
            "keep_interval": 0,
            "evaluation_interval": 0,
            "patience": 0,
            "validation_batches": 0,
            "explosion": 0,
            "hang_seconds": 1,
            "seed": 0,
        }
        for name, least in floors.items():
            # A NaN fails every comparison, so it ends here too.
            if not getattr(self, name) >= least:
                raise EngineError(f"{name} must be at least {least}, got {getattr(self, name)}.")


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
