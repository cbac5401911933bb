"""Training engine: device, precision, loop, exact resume, checkpoints, logging, command-line base."""

from typing import TYPE_CHECKING

from det_engine.__about__ import __version__
from det_engine.lazy import lazily

if TYPE_CHECKING:
    from det_engine.curves import draw_curves
    from det_engine.device import describe_environment, peak_memory_mib, resolve_device
    from det_engine.errors import EngineError, Interrupted
    from det_engine.failure import Finding, replay
    from det_engine.metrics import read_metrics
    from det_engine.model import TrainableModel
    from det_engine.optim import build_optimizer
    from det_engine.plain import to_plain
    from det_engine.precision import Precision
    from det_engine.progress import make_display
    from det_engine.random_state import capture_random_state, fork_rng, restore_random_state, seed_all
    from det_engine.run import RunDirectory
    from det_engine.settings import PRECISIONS, TrainResult, TrainSettings
    from det_engine.solver import SolverConfig, lr_at, scaled_to_batch
    from det_engine.step import TrainStep
    from det_engine.training import train
else:
    __getattr__, __dir__ = lazily(__name__, __file__)

__all__ = [
    "PRECISIONS",
    "EngineError",
    "Finding",
    "Interrupted",
    "Precision",
    "RunDirectory",
    "SolverConfig",
    "TrainResult",
    "TrainSettings",
    "TrainStep",
    "TrainableModel",
    "__version__",
    "build_optimizer",
    "capture_random_state",
    "describe_environment",
    "draw_curves",
    "fork_rng",
    "lr_at",
    "make_display",
    "peak_memory_mib",
    "read_metrics",
    "replay",
    "resolve_device",
    "restore_random_state",
    "scaled_to_batch",
    "seed_all",
    "to_plain",
    "train",
]
