"""The loop of a training, turn by turn: what is due, a step, and what to do where one goes wrong."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor

from det_engine import checkpoint, distributed
from det_engine.batches import Data
from det_engine.errors import EngineError, Interrupted
from det_engine.failure import describe_terms, explain
from det_engine.losses import BrokenStepError
from det_engine.model import Batch
from det_engine.plain import flatten
from det_engine.random_state import fork_rng
from det_engine.reporting import Clock, Reporter
from det_engine.run import RunDirectory
from det_engine.signals import StopSignals
from det_engine.solver import SolverConfig, lr_at
from det_engine.state import TrainingState
from det_engine.validation import validation_losses
from det_engine.watchdog import Watchdog

Evaluate = Callable[[], Mapping[str, Any]]
_MOST_FAILURES = 10


class Loop:
    """One training, turn by turn, from its state's step to the last."""

    def __init__(
        self,
        state: TrainingState,
        solver: SolverConfig,
        run: RunDirectory,
        data: Data,
        reporter: Reporter,
        signals: StopSignals,
        watchdog: Watchdog,
        writer: checkpoint.Writer,
    ) -> None:
        self._state, self._solver, self._run = state, solver, run
        self._data, self._reporter, self._signals = data, reporter, signals
        self._watchdog, self._writer = watchdog, writer
        self._settings = state.settings
        self._vote = distributed.StopVote()
        self._resumed_at = state.step if state.resumed_from == run.last else None
        self._clock = Clock(state.device)

    def start(self) -> None:
        """What comes before the first turn."""
        self._state.model.train()
        if self._settings.on_failure == "rollback" and self._state.step == 0:
            self._save()

    def turn(self, evaluate: Evaluate | None, validation: Callable[[], Iterator[Batch]] | None) -> None:
        """What is due after the steps so far, evaluation and checkpoint, then a step unless the training has ended.

        Raises:
            BrokenStepError: a step changed nothing; see `recover`.
            Interrupted: a signal came; a checkpoint was written.
        """
        state = self._state
        self._stop_if_asked()
        self._do_what_is_due(evaluate, validation)
        batch = None if state.finished else self._fetch()
        if batch is not None:
            values = state.make_step(batch, state.step, self._lr(state.step))
            self._count(values)

    def _stop_if_asked(self) -> None:
        stopped = self._vote(self._signals.requested)
        if stopped is not None:
            self._save()
            self._writer.wait()
            raise Interrupted(stopped, self._state.step, self._run.last)

    def _do_what_is_due(self, evaluate: Evaluate | None, validation: Callable[[], Iterator[Batch]] | None) -> None:
        state, settings = self._state, self._settings
        ended = state.step == self._solver.steps
        held_out = validation if settings.validation_batches else None
        if (
            (evaluate is not None or held_out is not None)
            and state.evaluated_step != state.step
            and (ended or _due(state.step, settings.evaluation_interval))
        ):
            self._evaluate(evaluate, held_out)
        elif self._resumed_at != state.step and (  # else it is there already
            ended or any(_due(state.step, n) for n in (settings.checkpoint_interval, settings.keep_interval))
        ):
            self._save()
        state.finished = ended or self._no_progress()

    def _fetch(self) -> Batch | None:
        """The next batch; None if it does not come because the training is being stopped."""
        state = self._state
        self._writer.check()
        self._clock.start()
        self._watchdog.at(state.step, "data")
        batch, failure = None, None
        try:
            batch = self._data.next()
        except Exception as error:
            # Ctrl-C in a terminal reaches worker processes of the data too, and they may fail before it is seen here.
            if self._signals.requested is not None and distributed.world_size() == 1:
                return None
            failure = error
        self._clock.data_came()
        self._watchdog.at(state.step, "step")
        if distributed.any_process(failure is not None):
            self._end_without_data(failure)
        return batch

    def _end_without_data(self, failure: Exception | None) -> NoReturn:
        """End all processes, as the data of one failed: a picture that cannot be read costs no step."""
        state = self._state
        if state.step not in (0, self._resumed_at):
            self._save()
            self._writer.wait()
            self._reporter.note(f"the data of step {state.step + 1} failed; all steps before are in {self._run.last}")
        if failure is None:
            raise distributed.OtherProcessError("its data failed")
        raise failure

    def _count(self, values: Tensor) -> None:
        """A step was launched, which gave `values`; read and log where that is due."""
        state = self._state
        state.record.add(state.make_step.names, values)
        state.step += 1
        state.images += state.batch_size
        self._clock.launched()
        due = _due(state.step, self._settings.log_interval) or state.step == self._solver.steps
        if due:
            self._watchdog.at(state.step, "log")
            state.record.check()
        state.seconds += self._reporter.step(self._clock.stop())
        if due:
            self._reporter.interval(state.record.take(), self._lr(state.step - 1))

    def _lr(self, step: int) -> float:
        return lr_at(self._solver, step) * self._state.lr_factor

    def _evaluate(self, evaluate: Evaluate | None, validation: Callable[[], Iterator[Batch]] | None) -> None:
        state = self._state
        # An evaluation may take long; whoever stops it loses no step.
        self._save()
        self._watchdog.at(state.step, "evaluation")
        began = time.perf_counter()
        self._reporter.note(f"step {state.step}: evaluating")
        metrics: dict[str, float] = {}
        with (
            # However long it takes, every batch is a movement.
            state.model.register_forward_pre_hook(lambda *_: self._watchdog.at(state.step, "evaluation")),
            torch.no_grad(),
            fork_rng(state.device),
            self._signals.immediately(),
            state.averaged(),
        ):
            if evaluate is not None:
                state.model.eval()
                try:
                    metrics = _metrics(evaluate())
                finally:
                    state.model.train()
            if validation is not None:
                metrics |= validation_losses(state, validation(), self._settings.validation_batches)
        metrics = distributed.broadcast_object(metrics)
        state.evaluated_step = state.step
        state.history.append({"step": state.step, **metrics})
        improved = self._improves(metrics)
        self._reporter.evaluation(metrics, time.perf_counter() - began)
        self._save(best=improved)

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

    def _no_progress(self) -> bool:
        state, patience = self._state, self._settings.patience
        if not patience or state.best is None or state.evaluated_step != state.step:
            return False
        since = sum(entry["step"] > state.best["step"] for entry in state.history)
        if since >= patience:
            self._reporter.note(
                f"stopping at step {state.step}: {since} evaluations without a better {state.best['metric']} than "
                f"{state.best['value']:.4f} at step {state.best['step']}"
            )
        return since >= patience

    def _save(self, *, best: bool = False) -> None:
        state = self._state
        self._watchdog.at(state.step, "checkpoint")
        state.record.check()
        state.make_step.same_everywhere()
        if distributed.is_main():
            run = self._run
            names = [run.best] if best else []
            if _due(state.step, self._settings.keep_interval):
                names.append(run.checkpoints / f"step-{state.step}.pt")
            self._writer.save(run.last, state.state_dict(), keep=run.previous, names=names)

    def recover(self, error: BrokenStepError) -> None:
        """Explain a broken step, keep it, and do what the settings say."""
        state, policy = self._state, self._settings.on_failure
        state.step -= error.steps_back
        state.images -= error.steps_back * state.batch_size
        broken = state.step + 1
        state.make_step.guard.unblock()
        self._data.close()
        finite = all(map(math.isfinite, (*error.terms.values(), error.grad_norm)))
        lines = [describe_terms(broken, error.terms, error.grad_norm)]
        batch = self._data.next()
        self._data.close()
        bundle = self._run.failures / f"step-{broken}.pt"
        lines += explain(
            state.make_step, batch, state.step, self._lr(state.step), bundle, state.config, exploded=finite
        )
        told = " ".join(lines)
        self._writer.wait()
        state.failures += 1
        give_up = state.failures > _MOST_FAILURES
        if policy == "stop" or give_up:
            last = self._run.last
            kept = f"the last good checkpoint is {last}" if last.exists() else "there is no checkpoint yet"
            count = f" It was failure {state.failures} of this training." if give_up else ""
            raise EngineError(
                f"{told} Training stopped; {kept}.{count} Look at the images and annotations of that step; try a lower "
                f"base_lr, more warmup_steps, a clip_norm, or bf16 or fp32 in place of fp16."
            )
        if policy == "skip":
            state.step = broken
            self._reporter.note(f"{told} Going on without step {broken}.")
        else:
            # Rank 0 has written the checkpoint by now; the others must not look earlier.
            distributed.broadcast_object(None)
            state.go_back(self._run.last)
            self._reporter.rewind()
            self._reporter.note(
                f"{told} Going on from step {state.step} with {state.lr_factor:g} times the learning rate."
            )


def _metrics(found: Any) -> dict[str, float]:
    """What an evaluation gave, flat; of the main process alone."""
    if not distributed.is_main():
        return {}
    if not isinstance(found, Mapping):
        raise EngineError(
            f"evaluate must return metrics by name, such as {{'accuracy': 0.9}}, got {type(found).__name__}."
        )
    try:
        return flatten(found)
    except (TypeError, ValueError, RuntimeError) as error:
        raise EngineError(f"evaluate must return numbers by name, flat or nested, got {found!r:.200}.") from error


def _due(step: int, interval: int) -> bool:
    return interval > 0 and step > 0 and step % interval == 0
