"""The training loop: model, data and recipe in; run directory and metrics out."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from det_engine import checkpoint
from det_engine.device import peak_memory_mib
from det_engine.errors import EngineError, Interrupted
from det_engine.losses import LossRecord, NonFiniteLoss
from det_engine.metrics import MetricsLog
from det_engine.optim import build_optimizer, set_lr, trainable_parameters
from det_engine.plain import flatten, to_plain, unflatten
from det_engine.precision import Precision, PrecisionName
from det_engine.progress import DisplayName, make_display
from det_engine.random_state import capture_random_state, lent_random_state, restore_random_state, seed_all
from det_engine.run import RunDirectory
from det_engine.signals import StopRequested, StopSignals
from det_engine.solver import SolverConfig, check_solver, lr_at

Batch = Mapping[str, Tensor]


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
        seed: of every random number in the training.
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


def train(
    model: nn.Module,
    *,
    solver: SolverConfig,
    batches: Callable[[int], Iterator[Batch]],
    batch_size: int,
    device: torch.device,
    run: RunDirectory,
    settings: TrainSettings = TrainSettings(),  # noqa: B008 - frozen
    evaluate: Callable[[], Mapping[str, Any]] | None = None,
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
            the model's.
        batch_size: images a step, for the speed.
        device: from `resolve_device`; the model is moved there.
        run: where metrics, checkpoints and results go.
        settings: precision, intervals, seed, display.
        evaluate: called without gradients, the model in evaluation mode; returns metrics, flat or nested by one
            level (`{"bbox": {"AP": 0.38}}`). It cannot move the training's random numbers.
        resume: checkpoint file or run directory to go on from.
        data_fingerprint: names the training data; a checkpoint of other data is refused.
        config: resolved configuration, kept in checkpoints.

    Returns:
        Final metrics and speed; also in `run.results`.

    Raises:
        EngineError: wrong settings, a checkpoint that does not fit, a full disk, or a loss that is not finite.
        Interrupted: SIGINT or SIGTERM came; the step was finished and a checkpoint written.
    """
    loop = _Loop(model, solver, settings, device, run, batch_size, data_fingerprint, config)
    if resume is not None:
        loop.resume(resume)
    return loop.run_to_end(batches, evaluate)


class _Loop:
    """State of one training."""

    def __init__(
        self,
        model: nn.Module,
        solver: SolverConfig,
        settings: TrainSettings,
        device: torch.device,
        run: RunDirectory,
        batch_size: int,
        data_fingerprint: str,
        config: Any,
    ) -> None:
        check_solver(solver)
        for name in ("log_interval", "checkpoint_interval", "evaluation_interval"):
            if getattr(settings, name) < (1 if name == "log_interval" else 0):
                raise EngineError(f"Setting {name} cannot be {getattr(settings, name)}.")
        self.solver, self.settings, self.device, self.run = solver, settings, device, run
        self.batch_size, self.data_fingerprint, self.config = batch_size, data_fingerprint, to_plain(config)
        self.precision = Precision(settings.precision, device, settings.loss_scale)
        self.model = model.to(device)
        self.optimizer = build_optimizer(self.model, solver)
        self.parameters = trainable_parameters(self.optimizer)
        self.record = LossRecord(("grad_norm",) if solver.clip_norm is not None else ())
        self.step = 0
        self.evaluated_step = 0
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self.seconds = 0.0
        self.data_seconds = 0.0
        self.logged_seconds = (0.0, 0.0, 0)
        self.notes: list[str] = []
        seed_all(settings.seed)

    # ---- checkpoints ----

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.precision.state_dict(),
            "random": capture_random_state(self.device),
            "step": self.step,
            "losses": self.record.state_dict(),
            "history": self.history,
            "best": self.best,
            "evaluated_step": self.evaluated_step,
            "seconds": self.seconds,
            "seed": self.settings.seed,
            "data_fingerprint": self.data_fingerprint,
            "config": self.config,
        }

    def save(self) -> None:
        self.check_losses()
        bad = [name for name, value in self.model.named_parameters() if not bool(torch.isfinite(value).all())]
        if bad:
            raise self.broken(f"Weights are no longer finite after step {self.step}: {', '.join(bad[:3])}.")
        checkpoint.save(self.run.last, self.state(), keep=self.run.previous)

    def resume(self, source: Path) -> None:
        run = RunDirectory(source)
        paths = [run.last, run.previous] if source.is_dir() else [source]
        state, path, self.notes = checkpoint.load_first([p for p in paths if p.exists()] or paths[:1])
        missing = [key for key in ("model", "optimizer", "random", "step", "losses") if key not in state]
        if missing:
            raise EngineError(f"Checkpoint {path} cannot be resumed: it holds no {', '.join(missing)}.")
        if state["data_fingerprint"] != self.data_fingerprint:
            raise EngineError(
                f"Checkpoint {path} was trained on other data (fingerprint {state['data_fingerprint'] or 'none'}, now "
                f"{self.data_fingerprint or 'none'}). Name the data of that run, or start a new run from its weights."
            )
        if state["step"] > self.solver.steps:
            raise EngineError(
                f"Checkpoint {path} is at step {state['step']}, the training ends at {self.solver.steps}."
            )
        checkpoint.load_model(self.model, state["model"], path)
        checkpoint.load_optimizer(self.optimizer, state["optimizer"], path)
        self.precision.load_state_dict(state["scaler"])
        self.record.load_state_dict(state["losses"])
        restore_random_state(state["random"], self.device)
        self.step, self.evaluated_step = state["step"], state["evaluated_step"]
        self.history, self.best, self.seconds = state["history"], state["best"], state["seconds"]
        self.logged_seconds = (self.seconds, 0.0, self.step)
        self.notes.append(f"resumed from {path} at step {self.step}")
        changed = _changes(flatten_config(state["config"]), flatten_config(self.config))
        if changed:
            self.notes.append(f"changed since that checkpoint: {', '.join(changed)}")

    # ---- the loop ----

    def run_to_end(
        self, batches: Callable[[int], Iterator[Batch]], evaluate: Callable[[], Mapping[str, Any]] | None
    ) -> TrainResult:
        settings = self.settings
        self.log = MetricsLog(self.run.metrics, self.step, self.evaluated_step)
        self.writer = self.run.summary_writer(self.step)
        self.display = make_display(settings.display, self.solver.steps, self.step)
        try:
            for note in self.notes:
                self.display.note(note)
            with StopSignals() as signals:
                try:
                    self.loop(batches, evaluate, signals)
                except StopRequested:
                    raise self.interrupted(signals, saved=True) from None
            return self.finish()
        finally:
            self.display.close()
            self.writer.close()
            self.log.close()

    def loop(
        self,
        batches: Callable[[int], Iterator[Batch]],
        evaluate: Callable[[], Mapping[str, Any]] | None,
        signals: StopSignals,
    ) -> None:
        settings, last_step = self.settings, self.solver.steps
        stream: Iterator[Batch] | None = None
        self.model.train()
        while True:
            ended = self.step == last_step
            evaluating = (
                evaluate is not None
                and self.evaluated_step != self.step
                and (ended or _due(self.step, settings.evaluation_interval))
            )
            if signals.requested is not None:
                self.save()
                raise self.interrupted(signals, saved=True)
            if evaluating and evaluate is not None:
                self.save()
                self.evaluate(evaluate, signals)
            elif self.step and (ended or _due(self.step, settings.checkpoint_interval)):
                self.save()
            if ended:
                return
            began = time.perf_counter()
            try:
                # Data may draw random numbers too; what they draw depends on nothing but the step.
                with lent_random_state(seed=_mix(settings.seed, self.step)):
                    stream = batches(self.step) if stream is None else stream
                    batch = next(stream)
            except StopIteration:
                raise EngineError(
                    f"The data ended at step {self.step} of {last_step}; batches() must yield for every step."
                ) from None
            except Exception:
                # Ctrl-C in a terminal reaches worker processes of the data too, and they may fail first.
                if signals.requested is not None:
                    continue
                raise
            self.data_seconds += time.perf_counter() - began
            self.train_step(batch)
            self.step += 1
            self.display.step(self.step)
            if _due(self.step, settings.log_interval) or self.step == last_step:
                self.check_losses()
                self.seconds += time.perf_counter() - began
                self.log_interval()
            else:
                self.seconds += time.perf_counter() - began

    def train_step(self, batch: Batch) -> None:
        image_ids = batch.get("image_ids")
        batch = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}
        set_lr(self.optimizer, lr_at(self.solver, self.step))
        self.optimizer.zero_grad(set_to_none=True)
        with self.precision.autocast():
            losses = self.model(batch)
        _check_losses(losses)
        self.precision.backward(torch.stack([value.float() for value in losses.values()]).sum())
        extras = []
        if self.solver.clip_norm is not None:
            self.precision.unscale(self.optimizer)
            extras.append(nn.utils.clip_grad_norm_(self.parameters, self.solver.clip_norm))
        self.precision.step(self.optimizer)
        self.record.add(losses, extras, image_ids)

    def check_losses(self) -> None:
        try:
            self.record.check()
        except NonFiniteLoss as error:
            raise self.explained(error) from None

    def log_interval(self) -> None:
        seconds, data_seconds, step = self.logged_seconds
        steps = self.step - step
        elapsed, waited = self.seconds - seconds, self.data_seconds - data_seconds
        self.logged_seconds = (self.seconds, self.data_seconds, self.step)
        values = self.record.take()
        values["learning_rate"] = lr_at(self.solver, self.step - 1)
        values["images_per_second"] = self.batch_size * steps / elapsed
        values["step_seconds"], values["data_seconds"] = elapsed / steps, waited / steps
        memory = peak_memory_mib(self.device)
        if memory is not None:
            values["peak_memory_mib"] = memory
        self.log.write("train", self.step, values)
        for name, value in values.items():
            self.writer.add_scalar(f"train/{name}", value, self.step)
        self.display.losses(self.step, values)

    def evaluate(self, evaluate: Callable[[], Mapping[str, Any]], signals: StopSignals) -> None:
        began = time.perf_counter()
        self.display.note(f"step {self.step}: evaluating")
        self.model.eval()
        try:
            with torch.no_grad(), lent_random_state(self.device), signals.immediately():
                metrics = flatten(evaluate())
        finally:
            self.model.train()
        seconds = time.perf_counter() - began
        self.evaluated_step = self.step
        self.history.append({"step": self.step, **metrics})
        improved = self.improves(metrics)
        self.log.write("evaluation", self.step, {**metrics, "seconds": seconds})
        for name, value in metrics.items():
            self.writer.add_scalar(f"evaluation/{name}", value, self.step)
        shown = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        self.display.note(f"step {self.step}: {shown}  ({seconds:.1f} s)")
        self.save()
        if improved:
            checkpoint.link(self.run.last, self.run.best)

    def improves(self, metrics: Mapping[str, float]) -> bool:
        name = self.settings.best_metric or next(iter(metrics), None)
        if name is None:
            return False
        if name not in metrics:
            raise EngineError(f"Setting best_metric is {name!r}, the evaluation gives {', '.join(metrics)}.")
        sign = 1 if self.settings.best_is_highest else -1
        if self.best is not None and self.best["metric"] == name and sign * metrics[name] <= sign * self.best["value"]:
            return False
        self.best = {"metric": name, "value": metrics[name], "step": self.step}
        return True

    def finish(self) -> TrainResult:
        metrics = {name: value for name, value in (self.history[-1] if self.history else {}).items() if name != "step"}
        speed = self.batch_size * self.step / self.seconds if self.seconds else 0.0
        results = unflatten(metrics)
        self.run.write_json(
            self.run.results,
            {**results, "images_per_second": speed, "steps": self.step, "seconds": self.seconds, "best": self.best},
        )
        return TrainResult(
            steps=self.step, metrics=metrics, best=self.best, images_per_second=speed, seconds=self.seconds
        )

    # ---- the ways it can end early ----

    def interrupted(self, signals: StopSignals, *, saved: bool) -> Interrupted:
        return Interrupted(signals.requested or 0, self.step, self.run.last if saved else None)

    def explained(self, error: NonFiniteLoss) -> EngineError:
        bad = ", ".join(f"{name} = {value}" for name, value in error.terms.items() if value - value != 0)
        good = ", ".join(f"{name} = {value:.4g}" for name, value in error.terms.items() if value - value == 0)
        images = "" if error.image_ids is None else f" Images of that batch: {', '.join(map(str, error.image_ids))}."
        return self.broken(
            f"The loss is not finite at step {error.step}: {bad}{f' ({good})' if good else ''}. Learning rate "
            f"{lr_at(self.solver, error.step - 1):.4g}, precision {self.precision.name}, "
            f"{self.precision.describe_scale()}.{images}"
        )

    def broken(self, what: str) -> EngineError:
        kept = f"the last good checkpoint is {self.run.last}" if self.run.last.exists() else "no checkpoint exists yet"
        return EngineError(
            f"{what} Training stopped; {kept}. Look at the annotations of these images; try a lower base_lr, more "
            f"warmup_steps, clip_norm, or bf16 or fp32 in place of fp16."
        )


def _due(step: int, interval: int) -> bool:
    return interval > 0 and step > 0 and step % interval == 0


def _mix(seed: int, step: int) -> int:
    """A seed for every step, far from those of other seeds (SplitMix64's constants)."""
    mixed = (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + 1) % 2**64
    return (mixed ^ (mixed >> 31)) % 2**63


def _check_losses(losses: object) -> None:
    if not isinstance(losses, Mapping) or not losses:
        raise EngineError(f"In training the model must return a dict of scalar losses, got {type(losses).__name__}.")
    for name, value in losses.items():
        if not isinstance(value, Tensor) or value.ndim:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise EngineError(f"Loss {name} must be a scalar tensor, got {shape}.")


def flatten_config(config: Any, prefix: str = "") -> dict[str, Any]:
    """A nested plain configuration as dotted names and values."""
    if not isinstance(config, Mapping):
        return {prefix: config}
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat.update(flatten_config(value, f"{prefix}.{name}" if prefix else name))
    return flat


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return [f"{name} {old.get(name)} -> {new.get(name)}" for name in {**old, **new} if old.get(name) != new.get(name)]
