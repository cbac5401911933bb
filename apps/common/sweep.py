"""``sweep``: trainings with other values, the bad ones ended early; which values are best."""

import contextlib
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apps.common.app import App
from apps.common.commands import read_options, take_recipe
from apps.common.config import Recipe
from apps.common.learning_options import SweepOptions, TrainOptions
from apps.common.output import default_output
from apps.common.search_space import SearchSpace
from apps.common.sweep_results import print_results, shown_values
from det_coco import DataError
from det_coco.outputs import whole_file
from det_engine import EngineError, Interrupted, RunDirectory, read_metrics
from det_engine.cli import UsageError, take_option
from det_engine.launching import LAUNCHED
from det_engine.options import option_names
from det_engine.signals import StopSignals

if TYPE_CHECKING:
    import optuna

_PATIENT_TRIALS = 4
"""Trials that are trained to the end before others are compared with them."""
_LOOK = 0.5
"""Seconds between two looks at a training's evaluations."""
_EVALUATIONS = 5
"""Of a training that says nothing about them: else none could be ended early."""
_FAREWELL = 150.0
"""Seconds that a training may take to end after its sweep was killed."""
_KEPT = "sweep.json"


def sweep(app: App, args: list[str]) -> None:
    """Try learning rates, sizes, anchors and augmentation by Optuna, within a budget."""
    options, training = _read(app, args)
    resumed = options.resume
    if resumed is not None:
        options, training = _kept(resumed, options)
    space = SearchSpace(recipe=_recipe(app, training), vary=options.vary)
    folder = resumed or options.output or default_output(app, "sweep")
    holder = _held(folder)
    if resumed is None:
        _begin(folder, options, training)
    study = _study(folder)
    if not study.trials:
        study.enqueue_trial(space.first())
    print(f"Sweep: {folder}", flush=True)
    began = time.monotonic()
    with StopSignals() as signals:
        sweeping = _Sweep(app, folder, study, space, options, training, signals)
        while sweeping.has_more() and not _is_over(options.minutes, began):
            sweeping.trial()
    print_results(app, study, folder, options.metric)
    holder.give_back()


def _is_over(minutes: float | None, began: float) -> bool:
    return minutes is not None and time.monotonic() - began > 60 * minutes


class _Sweep:
    """Trials, one after the other, each a training in a process of its own."""

    def __init__(
        self,
        app: App,
        folder: Path,
        study: "optuna.Study",
        space: SearchSpace,
        options: SweepOptions,
        training: Sequence[str],
        signals: StopSignals,
    ) -> None:
        self._signals = signals
        self._app, self._folder, self._study, self._space = app, folder, study, space
        self._options, self._arguments = options, [*training, *_evaluating(space.recipe)]

    def has_more(self) -> bool:
        """Whether a trial is left, or one that was interrupted."""
        return bool(self._running()) or sum(t.state.is_finished() for t in self._study.trials) < self._options.trials

    def trial(self) -> None:
        """A training with values that Optuna chose, or the one that was interrupted."""
        import optuna

        running = self._running()
        trial = optuna.Trial(self._study, running[0]._trial_id) if running else self._study.ask()
        run = RunDirectory(self._folder / f"trial-{trial.number:03d}")
        began = time.monotonic()
        best, pruned, failure = self._train(trial, run)
        state = optuna.trial.TrialState.FAIL if failure else optuna.trial.TrialState.PRUNED if pruned else None
        self._study.tell(trial, best if state is None else None, state)
        minutes = (time.monotonic() - began) / 60
        found = (
            f"failed: {failure}" if failure else f"{self._options.metric} {best:.4f}{', ended early' if pruned else ''}"
        )
        print(f"trial {trial.number}: {found}  {shown_values(trial.params)}  {minutes:.1f} min", flush=True)
        if failure and trial.number == 0:
            raise EngineError(
                f"The first trial, with the recipe's own values, failed: {failure} Its log is {_log(run)}."
            )

    def _running(self) -> list[Any]:
        from optuna.trial import TrialState

        return self._study.get_trials(states=(TrialState.RUNNING,))

    def _train(self, trial: "optuna.Trial", run: RunDirectory) -> tuple[float, bool, str]:
        """The best value, whether the training was ended early, and why it failed."""
        drawn = self._space.options(trial)
        trial.set_user_attr("options", drawn)
        _wait_for(run)
        if not run.is_resumable:  # of a training that was killed before its first checkpoint nothing can go on
            shutil.rmtree(run.path, ignore_errors=True)
        arguments = ["--resume", str(run)] if run.is_resumable else [*self._arguments, *drawn, "--output", str(run)]
        command = [*self._app.program, "train", *arguments]
        own = {**os.environ, LAUNCHED: str(os.getpid())}  # so that it ends where this process has ended
        with (
            _log(run).open("a", encoding="utf-8") as log,
            subprocess.Popen(command, stdout=log, stderr=log, env=own) as process,
        ):
            try:
                pruned = self._watch(process, trial, run)
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
        values = self._values(run)
        if process.returncode and not pruned:
            return math.nan, False, _last_line(_log(run))
        if not values:
            return math.nan, False, f"no evaluation has {self._options.metric}."
        return max(values.values()), pruned, ""

    def _watch(self, process: subprocess.Popen[bytes], trial: "optuna.Trial", run: RunDirectory) -> bool:
        """Wait for the end, or end a training that is worse than others were at the same step."""
        told = set(self._study.trials[trial.number].intermediate_values)
        while process.poll() is None:
            if self._signals.requested is not None:
                process.terminate()
                process.wait()
                print(f"Go on with: hatch run apps/{self._app.name} sweep --resume {self._folder}", file=sys.stderr)
                raise Interrupted(self._signals.requested, max(told, default=0), None)
            for step, value in self._values(run).items():
                if step not in told:
                    told.add(step)
                    trial.report(value, step)
                    if trial.should_prune():
                        process.terminate()
                        return True
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_LOOK)
        return False

    def _values(self, run: RunDirectory) -> dict[int, float]:
        """The metric after each evaluation so far, by step."""
        name = self._options.metric
        lines = [line for line in read_metrics(run.metrics) if line["kind"] == "evaluation"]
        return {line["step"]: line[name] for line in lines if isinstance(line.get(name), int | float)}


def _read(app: App, args: list[str]) -> tuple[SweepOptions, list[str]]:
    """The options of the sweep, and those of its trainings."""
    default = SweepOptions()
    own, training = [], list(args)
    for name in option_names(default):
        if name == "--vary":
            continue
        value, training = take_option(training, name.removeprefix("--"))
        own += [] if value is None else [name, value]
    varied, training = _several(training, "--vary")
    options = read_options(app, "sweep", [*own, *varied], default)
    if options.resume is not None and training:
        raise UsageError(
            f"A resumed sweep has its own options; leave out {training[0]}. The sweep is {options.resume}."
        )
    return options, training


def _several(args: Sequence[str], flag: str) -> tuple[list[str], list[str]]:
    """An option with all its values, and the other arguments."""
    if flag not in args:
        return [], list(args)
    start = args.index(flag)
    stop = next((i for i in range(start + 1, len(args)) if args[i].startswith("--")), len(args))
    return list(args[start:stop]), [*args[:start], *args[stop:]]


def _recipe(app: App, training: Sequence[str]) -> Recipe:
    """What a training without other values would be."""
    recipe, rest = take_recipe(app, list(training))
    return read_options(app, "train", rest, TrainOptions(recipe=recipe.name, values=recipe)).values


def _evaluating(recipe: Recipe) -> list[str]:
    """An option for evaluations on the way, where the recipe has fewer: else no training could be ended early."""
    steps, interval = recipe.solver.steps, recipe.train.evaluation_interval
    if 0 < interval <= steps // 2:
        return []
    return ["--train.evaluation-interval", str(max(1, steps // _EVALUATIONS))]


def _held(folder: Path) -> RunDirectory:
    """The folder of a sweep, of which this process is the only one.

    Raises:
        EngineError: another process is, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EngineError(f"Cannot make the output directory {folder}: {error.strerror or error}.") from error
    holder = RunDirectory(folder)
    holder.hold()
    return holder


def _wait_for(run: RunDirectory) -> None:
    """Wait for a training that a killed sweep left, which ends by itself.

    Raises:
        EngineError: it does not.
    """
    until = time.monotonic() + _FAREWELL
    while run.path.exists():
        try:
            run.hold()
        except EngineError:
            if time.monotonic() > until:
                raise
            time.sleep(_LOOK)
        else:
            run.give_back()
            return


def _begin(folder: Path, options: SweepOptions, training: list[str]) -> None:
    """Write down the options of a new sweep."""
    if (folder / _KEPT).exists():
        raise UsageError(f"Output {folder} holds a sweep already. Resume it (--resume {folder}) or name another.")
    kept = {"metric": options.metric, "vary": options.vary, "training": training}
    with whole_file(folder / _KEPT) as file:
        file.write(json.dumps(kept, indent=2).encode())


def _kept(folder: Path, options: SweepOptions) -> tuple[SweepOptions, list[str]]:
    """The options of a sweep that goes on."""
    try:
        kept = json.loads((folder / _KEPT).read_text(encoding="utf-8"))
        chosen = {"metric": str(kept["metric"]), "vary": tuple(kept["vary"])}
        return SweepOptions(trials=options.trials, minutes=options.minutes, **chosen), list(map(str, kept["training"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"There is no sweep to resume in {folder}: {_KEPT} is missing or damaged ({error}).") from None


def _study(folder: Path) -> "optuna.Study":
    """The trials so far; a journal in the folder holds them."""
    try:
        import optuna
        from optuna.storages.journal import JournalFileBackend
    except ImportError:
        raise EngineError("sweep needs Optuna, which is not installed: pip install optuna.") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal = folder / "trials.journal"
    _mend(journal)
    try:
        return optuna.create_study(
            study_name="sweep",
            storage=optuna.storages.JournalStorage(JournalFileBackend(str(journal))),
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=_PATIENT_TRIALS),
        )
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        raise EngineError(
            f"The trials of the sweep in {folder} cannot be read: {journal.name} is damaged ({error}). Start another "
            "sweep; the trainings of this one are in their folders."
        ) from error


def _mend(journal: Path) -> None:
    """Take away what a killed process left: half a line, which would spoil the next one, and Optuna's lock."""
    journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)
    if journal.exists():
        whole = journal.read_bytes().rpartition(b"\n")
        if whole[2]:
            os.truncate(journal, len(whole[0]) + len(whole[1]))


def _log(run: RunDirectory) -> Path:
    return run.path.with_suffix(".log")


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return next((line for line in reversed(lines) if line.startswith("error:")), lines[-1] if lines else "no output.")
