"""The training loop: model, data and recipe in; run directory and metrics out."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from det_engine import checkpoint, distributed
from det_engine.batches import Batches, Data
from det_engine.errors import EngineError, Interrupted
from det_engine.loop import Evaluate, Loop
from det_engine.losses import BrokenStepError
from det_engine.model import Batch
from det_engine.plain import unflatten
from det_engine.random_state import seed_all
from det_engine.reporting import Draw, Reporter
from det_engine.run import RunDirectory
from det_engine.settings import TrainResult, TrainSettings
from det_engine.signals import StopRequested, StopSignals
from det_engine.solver import SolverConfig
from det_engine.state import TrainingState
from det_engine.tracking import check_installed
from det_engine.watchdog import watched


def train(
    model: nn.Module,
    *,
    solver: SolverConfig,
    batches: Batches,
    batch_size: int,
    device: torch.device,
    run: RunDirectory,
    settings: TrainSettings | None = None,
    evaluate: Evaluate | None = None,
    validation: Callable[[], Iterator[Batch]] | None = None,
    pictures: Draw | None = None,
    resume: Path | None = None,
    data_fingerprint: str = "",
    surroundings: Mapping[str, str] | None = None,
    config: Any = None,
) -> TrainResult:
    """Train `model` for `solver.steps` steps; stop, resume and fail gracefully.

    Nothing is read from the device during a step. A stopped and resumed training gives the same weights as an
    uninterrupted one (on the CPU bit for bit), if `batches(step)` yields the same batches wherever it starts. Several
    processes (see `distributed.processes`) give the losses and weights of one that has all their images.

    Args:
        model: in training mode `model(batch)` returns a dict of named scalar losses; their sum is minimised. What it
            can do beyond that is said in `TrainableModel`.
        solver: recipe for `batch_size` images a step (see `scaled_to_batch`).
        batches: `batches(step)` iterates over this process's batches of steps `step`, `step + 1`, ... (the first is
            0). Random numbers that it draws from the global CPU generators are seeded anew for each step, and it
            cannot move the model's. A batch may name its images in `image_ids` (int64 `[B]`), for messages. A list or
            a DataLoader of batches is gone through again and again.
        batch_size: images a step, over all processes.
        device: from `resolve_device`; the model is moved there.
        run: where metrics, checkpoints and results go.
        settings: precision, intervals, seed, display.
        evaluate: called by every process without gradients, the model in evaluation mode with its averaged weights;
            returns metrics, flat or nested (`{"bbox": {"AP": 0.38}}`), of which rank 0's count. It cannot move the
            training's random numbers. Half-precision weights (O2) need `Precision.autocast` there too.
        validation: iterates over this process's share of held-out batches, for `settings.validation_batches`.
        pictures: called by the main process after each evaluation, for trackers: what it found, drawn, uint8
            `[H, W, 3]` RGB by name.
        resume: checkpoint file or run directory to go on from.
        data_fingerprint: names the training data; a checkpoint of other data is refused.
        surroundings: texts by name, such as fingerprints of pictures, a change of which is said when the training goes
            on; where it is `held-out annotations` that changed, the best is chosen anew.
        config: resolved configuration, kept in checkpoints.

    Returns:
        Final metrics and speed; also in `run.results`.

    Raises:
        EngineError: wrong arguments or settings, a run that another process writes to, a checkpoint that does not fit,
            a full disk, or a loss that is not finite.
        Interrupted: SIGINT, SIGTERM or SIGHUP came; the step was finished and a checkpoint written.
    """
    settings = settings or TrainSettings()
    device = torch.device(device)
    _check_arguments(model, solver, batch_size, run, settings)
    _check_optional(resume=resume, evaluate=evaluate, validation=validation, pictures=pictures)
    distributed.per_process(batch_size)
    if distributed.is_main():
        run.hold()
    seed_all(settings.seed)
    state = TrainingState(model, solver, settings, device, batch_size, data_fingerprint, config, surroundings)
    notes = [] if resume is None else [*state.resume(resume), *_repair(run, state)]
    with (
        StopSignals() as signals,
        watched(settings.hang_seconds, device) as watchdog,
        checkpoint.Writer() as writer,
        Reporter(run, state, pictures, evaluates=evaluate is not None) as reporter,
    ):
        signals.show = reporter.urgent
        for note in (*notes, *_of_batch_norm(model, batch_size, settings.accumulate)):
            reporter.note(note)
        data = Data(batches, state, solver.steps)
        loop = Loop(state, solver, run, data, reporter, signals, watchdog, writer)
        with contextlib.closing(data):
            loop.start()
            while not state.finished:
                try:
                    loop.turn(evaluate, validation)
                except BrokenStepError as error:
                    loop.recover(error)
                except StopRequested:
                    # During an evaluation, before which a checkpoint was written.
                    writer.wait()
                    raise Interrupted(signals.requested or 0, state.step, run.last) from None
            writer.wait()
        for line in _of_the_best(run, state):
            reporter.note(line)
    return _finish(state, run)


def _of_batch_norm(model: nn.Module, batch_size: int, accumulate: int) -> list[str]:
    """A line where batch norm makes the losses depend on how a batch is cut, or none."""
    kinds = [kind for m in model.modules() if m.training and isinstance(m, _BatchNorm) for kind in [type(m)]]
    synchronised = [kind for kind in kinds if issubclass(kind, nn.SyncBatchNorm)]
    processes = 1 if len(synchronised) == len(kinds) else distributed.world_size()
    if not kinds or processes * accumulate == 1:
        return []
    ways = ["statistics that are frozen (frozen_bn)", "group norm (gn)"]
    ways = ways if accumulate > 1 else ["batch norm over all processes (sync_bn)", *ways]
    return [
        f"batch norm sees {batch_size // (processes * accumulate)} images at a time and not the {batch_size} of a "
        f"step, so the losses differ from those of one process that sees all at once; {', or '.join(ways)}, would make "
        "them equal"
    ]


def _repair(run: RunDirectory, state: TrainingState) -> list[str]:
    """What a killed process left undone is done, on disk; lines to show."""
    whole = True
    if distributed.is_main() and state.resumed_from is not None:
        try:
            whole = run.repair(state.resumed_from, is_best=state.resumed_at_best)
        except OSError as error:
            raise EngineError(f"Cannot write to {run.checkpoints}: {error.strerror or error}.") from error
    if distributed.broadcast_object(whole) or state.best is None:
        return []
    lost, state.best = state.best, None
    return [
        f"{run.best} is missing or damaged, which was the best ({lost['metric']} {lost['value']:.4f} at step "
        f"{lost['step']}); the best is chosen anew from here on"
    ]


def _of_the_best(run: RunDirectory, state: TrainingState) -> list[str]:
    """A line where the results, which are those of the last step, are not the best ones."""
    best = state.best
    if best is None or not state.history or best["step"] >= state.history[-1]["step"]:
        return []
    last = state.history[-1]
    value = f" with {best['metric']} {last[best['metric']]:.4f}" if best["metric"] in last else ""
    return [
        f"the results are those of step {last['step']}{value}; the best, {best['metric']} {best['value']:.4f}, was at "
        f"step {best['step']}: {run.best}"
    ]


def _finish(state: TrainingState, run: RunDirectory) -> TrainResult:
    metrics = {name: value for name, value in (state.history[-1] if state.history else {}).items() if name != "step"}
    speed = state.images / state.seconds if state.seconds else 0.0
    result = TrainResult(
        steps=state.step, metrics=metrics, best=state.best, images_per_second=speed, seconds=state.seconds
    )
    facts = {"images_per_second": speed, "steps": state.step, "seconds": state.seconds, "best": state.best}
    if distributed.is_main():
        run.write_json(run.results, {**unflatten(metrics), **facts})
    return result


def _check_arguments(model: Any, solver: Any, batch_size: Any, run: Any, settings: Any) -> None:
    """Refuse arguments of another kind, which would fail later and elsewhere."""
    kinds = {
        "model": (model, nn.Module, "a torch.nn.Module"),
        "solver": (solver, SolverConfig, "a SolverConfig"),
        "batch_size": (batch_size, int, "a whole number"),
        "run": (run, RunDirectory, "a RunDirectory, from RunDirectory.create or RunDirectory.open"),
        "settings": (settings, TrainSettings, "TrainSettings"),
    }
    for name, (value, kind, expected) in kinds.items():
        if not isinstance(value, kind):
            raise EngineError(f"{name} must be {expected}, got {type(value).__name__}.")
    check_installed(settings.trackers)


def _check_optional(resume: Any, **functions: Any) -> None:
    """The same for arguments that may be None."""
    if not isinstance(resume, str | os.PathLike | None):
        raise EngineError(f"resume must be a checkpoint file or the directory of a run, got {type(resume).__name__}.")
    for name, function in functions.items():
        if function is not None and not callable(function):
            raise EngineError(f"{name} must be a function without arguments, got {type(function).__name__}.")
