"""The training loop: model, data and recipe in; run directory and metrics out."""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from det_engine import checkpoint
from det_engine.errors import EngineError, Interrupted
from det_engine.losses import NonFiniteLossError
from det_engine.optim import set_lr, trainable_parameters
from det_engine.plain import flatten, unflatten
from det_engine.random_state import lent_random_state, seed_all
from det_engine.reporting import Reporter
from det_engine.run import RunDirectory
from det_engine.settings import TrainResult, TrainSettings, check_settings
from det_engine.signals import StopRequested, StopSignals
from det_engine.solver import SolverConfig, check_solver, lr_at
from det_engine.state import TrainingState

Batch = Mapping[str, Tensor]
Batches = Callable[[int], Iterator[Batch]]
Evaluate = Callable[[], Mapping[str, Any]]


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
    resume: Path | None = None,
    data_fingerprint: str = "",
    config: Any = None,
) -> TrainResult:
    """Train `model` for `solver.steps` steps; stop, resume and fail gracefully.

    Nothing is read from the device during a step. A stopped and resumed training gives the same weights as an
    uninterrupted one (on the CPU bit for bit), if `batches(step)` yields the same batches wherever it starts.

    Args:
        model: in training mode `model(batch)` returns a dict of named scalar losses; their sum is minimised.
        solver: recipe for `batch_size` images a step (see `scale_to_batch`).
        batches: `batches(step)` iterates over the batches of steps `step`, `step + 1`, ... (the first is 0). Random
            numbers that it draws from the global CPU generators are seeded anew for each step, and it cannot move
            the model's. A batch may name its images in `image_ids` (int64 `[B]`), for messages.
        batch_size: images a step, for the speed.
        device: from `resolve_device`; the model is moved there.
        run: where metrics, checkpoints and results go.
        settings: precision, intervals, seed, display.
        evaluate: called without gradients, the model in evaluation mode; returns metrics, flat or nested
            (`{"bbox": {"AP": 0.38}}`). It cannot move the training's random numbers.
        resume: checkpoint file or run directory to go on from.
        data_fingerprint: names the training data; a checkpoint of other data is refused.
        config: resolved configuration, kept in checkpoints.

    Returns:
        Final metrics and speed; also in `run.results`.

    Raises:
        EngineError: wrong settings, a checkpoint that does not fit, a full disk, or a loss that is not finite.
        Interrupted: SIGINT or SIGTERM came; the step was finished and a checkpoint written.
    """
    settings = settings or TrainSettings()
    check_solver(solver)
    check_settings(settings)
    seed_all(settings.seed)
    state = TrainingState(model, solver, settings, device, data_fingerprint, config)
    notes = state.resume(resume) if resume is not None else []
    with StopSignals() as signals, Reporter(run, state, batch_size) as reporter:
        for note in notes:
            reporter.note(note)
        loop = _Loop(state, solver, run, reporter, signals)
        try:
            loop.run(batches, evaluate)
        except StopRequested:
            # During an evaluation, before which a checkpoint was written.
            raise Interrupted(signals.requested or 0, state.step, run.last) from None
    return _finish(state, run, batch_size)


def _finish(state: TrainingState, run: RunDirectory, batch_size: int) -> TrainResult:
    metrics = {name: value for name, value in (state.history[-1] if state.history else {}).items() if name != "step"}
    speed = batch_size * state.step / state.seconds if state.seconds else 0.0
    result = TrainResult(
        steps=state.step, metrics=metrics, best=state.best, images_per_second=speed, seconds=state.seconds
    )
    facts = {"images_per_second": speed, "steps": state.step, "seconds": state.seconds, "best": state.best}
    run.write_json(run.results, {**unflatten(metrics), **facts})
    return result


class _Loop:
    """One training, from its state's step to the last."""

    def __init__(
        self, state: TrainingState, solver: SolverConfig, run: RunDirectory, reporter: Reporter, signals: StopSignals
    ) -> None:
        self._state, self._solver, self._run = state, solver, run
        self._reporter, self._signals = reporter, signals
        self._settings = state.settings
        self._parameters = trainable_parameters(state.optimizer)
        self._stream: Iterator[Batch] | None = None

    def run(self, batches: Batches, evaluate: Evaluate | None) -> None:
        """Steps, log lines, checkpoints and evaluations until the last step or a signal."""
        state, settings = self._state, self._settings
        state.model.train()
        try:
            while True:
                if self._signals.requested is not None:
                    self._save()
                    raise Interrupted(self._signals.requested, state.step, self._run.last)
                ended = state.step == self._solver.steps
                if (
                    evaluate is not None
                    and state.evaluated_step != state.step
                    and (ended or _due(state.step, settings.evaluation_interval))
                ):
                    self._evaluate(evaluate)
                elif ended or _due(state.step, settings.checkpoint_interval):
                    self._save()
                if ended:
                    return
                self._step(batches)
        finally:
            close = getattr(self._stream, "close", None)
            if close is not None:
                close()

    def _step(self, batches: Batches) -> None:
        state, began = self._state, time.perf_counter()
        try:
            batch = self._next(batches)
        except Exception:
            # Ctrl-C in a terminal reaches worker processes of the data too, and they may fail before it is seen here.
            if self._signals.requested is not None:
                return
            raise
        waited = time.perf_counter() - began
        self._optimize(batch)
        state.step += 1
        due = _due(state.step, self._settings.log_interval) or state.step == self._solver.steps
        if due:
            self._check_losses()
        seconds = time.perf_counter() - began
        state.seconds += seconds
        self._reporter.step(seconds, waited)
        if due:
            self._reporter.interval(state.record.take(), lr_at(self._solver, state.step - 1))

    def _next(self, batches: Batches) -> Batch:
        state = self._state
        # Data may draw random numbers too; what they draw depends on nothing but the step.
        with lent_random_state(seed=_mix(self._settings.seed, state.step)):
            if self._stream is None:
                self._stream = batches(state.step)
            try:
                return next(self._stream)
            except StopIteration:
                raise EngineError(
                    f"The data ended at step {state.step} of {self._solver.steps}; batches() must yield one per step."
                ) from None

    def _optimize(self, batch: Batch) -> None:
        state = self._state
        on_device = {name: value.to(state.device, non_blocking=True) for name, value in batch.items()}
        set_lr(state.optimizer, lr_at(self._solver, state.step))
        state.optimizer.zero_grad(set_to_none=True)
        with state.precision.autocast():
            losses = state.model(on_device)
        _check_form(losses)
        state.precision.backward(torch.stack([value.float() for value in losses.values()]).sum())
        extras = []
        if self._solver.clip_norm is not None:
            state.precision.unscale(state.optimizer)
            extras.append(nn.utils.clip_grad_norm_(self._parameters, self._solver.clip_norm))
        state.precision.step(state.optimizer)
        state.record.add(losses, extras, batch.get("image_ids"))

    def _evaluate(self, evaluate: Evaluate) -> None:
        state = self._state
        # An evaluation may take long; whoever stops it loses no step.
        self._save()
        began = time.perf_counter()
        self._reporter.note(f"step {state.step}: evaluating")
        state.model.eval()
        try:
            with torch.no_grad(), lent_random_state(state.device), self._signals.immediately():
                metrics = flatten(evaluate())
        finally:
            state.model.train()
        state.evaluated_step = state.step
        state.history.append({"step": state.step, **metrics})
        improved = self._improves(metrics)
        self._reporter.evaluation(metrics, time.perf_counter() - began)
        self._save()
        if improved:
            checkpoint.link(self._run.last, self._run.best)

    def _improves(self, metrics: Mapping[str, float]) -> bool:
        name = self._settings.best_metric or next(iter(metrics), None)
        if name is None:
            return False
        if name not in metrics:
            raise EngineError(f"Setting best_metric is {name!r}, but the evaluation gives {', '.join(metrics)}.")
        value, best = metrics[name], self._state.best
        if value != value:  # not a number is never the best
            return False
        sign = 1 if self._settings.best_is_highest else -1
        if best is not None and best["metric"] == name and sign * value <= sign * best["value"]:
            return False
        self._state.best = {"metric": name, "value": value, "step": self._state.step}
        return True

    def _save(self) -> None:
        self._check_losses()
        state = self._state
        names, values = zip(*state.model.named_parameters(), strict=True)
        finite = torch.stack([torch.isfinite(value).all() for value in values]).tolist()
        bad = [name for name, is_finite in zip(names, finite, strict=True) if not is_finite]
        if bad:
            shown = ", ".join(bad[:3])
            raise self._broken(f"After step {state.step} {len(bad)} weights are not finite, the first: {shown}.")
        checkpoint.save(self._run.last, state.state_dict(), keep=self._run.previous)

    def _check_losses(self) -> None:
        try:
            self._state.record.check()
        except NonFiniteLossError as error:
            precision = self._state.precision
            raise self._broken(
                f"{error} Learning rate {lr_at(self._solver, error.step - 1):.4g}, precision {precision.name}, "
                f"{precision.describe_scale()}."
            ) from None

    def _broken(self, what: str) -> EngineError:
        last = self._run.last
        kept = f"the last good checkpoint is {last}" if last.exists() else "there is no checkpoint yet"
        return EngineError(
            f"{what} Training stopped; {kept}. Look at the images and annotations of that step; try a lower base_lr, "
            f"more warmup_steps, a clip_norm, or bf16 or fp32 in place of fp16."
        )


def _due(step: int, interval: int) -> bool:
    return interval > 0 and step > 0 and step % interval == 0


def _mix(seed: int, step: int) -> int:
    """A seed for every step, far from those of other seeds (SplitMix64's constants)."""
    mixed = (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + 1) % 2**64
    return (mixed ^ (mixed >> 31)) % 2**63


def _check_form(losses: object) -> None:
    if not isinstance(losses, Mapping) or not losses:
        raise EngineError(f"In training the model must return a dict of scalar losses, got {type(losses).__name__}.")
    for name, value in losses.items():
        if not isinstance(value, Tensor) or value.ndim:
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise EngineError(f"Loss {name} must be a scalar tensor, got {got}.")
