"""``train``: data, recipe and weights in; a run directory out."""

import dataclasses
import functools
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import det_engine
from apps.common.app import App, with_classes, with_counts
from apps.common.batch_size import saying_what_fits, with_fitting_batch
from apps.common.commands import read_options, take_recipe
from apps.common.config import Recipe
from apps.common.consequences import fitted_schedule, fitted_sizes, without_frozen
from apps.common.data import training_batches, validation_loader
from apps.common.detecting import autocast_name
from apps.common.evaluate import Evaluator
from apps.common.learning_options import TrainOptions
from apps.common.output import default_output, new_run
from apps.common.printing import print_final, print_metrics, print_next, print_places, say
from apps.common.splits import Splits, open_splits, surroundings
from apps.common.weights import adopt, describe, initialize, open_start, read_config, read_config_file
from det_engine import (
    Interrupted,
    RunDirectory,
    TrainResult,
    checkpoint,
    distributed,
    draw_curves,
    resolve_device,
    seed_all,
)
from det_engine.cli import UsageError, take_option
from det_engine.options import keep_explicit, named_options
from det_engine.stages import stage
from det_models import Detector, Predictor, Weights


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What the command line asks for."""

    options: TrainOptions
    recipe: Recipe
    line: str
    """What follows from the batch and the weights, to be printed."""
    run: RunDirectory | None
    """The one to go on with."""
    device: torch.device


def train(app: App, args: list[str]) -> None:
    """Train a detector, evaluate it, keep its checkpoints."""
    began = time.perf_counter()
    job, start = _read(app, args)
    with distributed.processes(job.device, job.recipe.train.hang_seconds):
        splits, recipe = _open(job)
        model = _build(app, job, recipe, start)
        del start  # whose tensors the model has
        skeleton = splits.train.skeleton
        description = describe(app, recipe, splits.train.categories, skeleton.limbs if skeleton else ())
        config = {
            **description,
            "data": _text(job.options.data),
            "data_fingerprint": splits.train.fingerprint,
        }
        run = job.run or new_run(job.options.output or default_output(app, recipe.name), config, job.device)
        if distributed.is_main():
            splits.write_down(run)
        print(f"Run: {run}", flush=True)
        evaluator = _evaluator(model, recipe, splits, job.device)
        pin_memory = job.device.type != "cpu"
        fits = saying_what_fits(app, recipe, splits.train, job.device)
        with _saying_how_to_go_on(app, run), fits:
            result = det_engine.train(
                model,
                solver=recipe.solver,
                batches=lambda step: training_batches(recipe, splits.train, step, pin_memory=pin_memory),
                batch_size=recipe.data.batch,
                device=job.device,
                run=run,
                settings=recipe.train,
                evaluate=evaluator,
                validation=lambda: iter(validation_loader(recipe, splits.val)),
                pictures=lambda: evaluator.drawn(job.options.pictures),
                resume=None if job.run is None else job.run.path,
                data_fingerprint=splits.train.fingerprint,
                surroundings=surroundings(splits),
                config=config,
            )
        _report(app, run, evaluator, result, job.options.pictures)
        run.give_back()
        print(f"E2E Training Duration sec : {time.perf_counter() - began:.1f}")


@contextmanager
def _saying_how_to_go_on(app: App, run: RunDirectory) -> Generator[None]:
    """A training; one that is interrupted leaves its curves, and says how it goes on."""
    try:
        yield
    except Interrupted as error:
        if distributed.is_main():
            draw_curves(run)
        error.args = (f"{error}\nGo on with: hatch run apps/{app.name} train --resume {run}",)
        raise


def _read(app: App, args: list[str]) -> tuple[_Job, Weights | None]:
    """The command line: a new run and the weights that it begins with, or a run that goes on."""
    resume, rest = take_option(args, "resume")
    if resume is None and distributed.is_restarted():
        resume, rest = _restarted(rest)
    start: Weights | None = None
    adopted: list[str] = []
    of_batch = ""
    if resume is None:
        run, data = None, None
        recipe, rest = _taken(app, rest)
        rest, of_batch = with_fitting_batch(app, recipe, rest)
        start = open_start(take_option(rest, "weights")[0])
        some = bool({"--weights-parts", "--drop-mismatched"} & named_options(rest))
        recipe, adopted = adopt(app, recipe, start, some=some)
    else:
        run = RunDirectory.open(resume)
        recipe, data = _resumed(app, run)
    options, recipe, line = _parse(app, recipe, data, rest, resumed=run is not None)
    line += f"\n{of_batch}" if of_batch else ""
    if adopted:
        line += "\nFrom the weights, unless an option says otherwise: " + "; ".join(adopted) + "."
    if run is not None:
        _refuse(options, recipe, run)
    elif options.output is not None and RunDirectory(options.output).is_resumable:
        there = options.output
        raise UsageError(f"Output {there} holds a run already. Resume it (--resume {there}) or name another.")
    return _Job(options=options, recipe=recipe, line=line, run=run, device=resolve_device(options.device)), start


def _taken(app: App, args: list[str]) -> tuple[Recipe, list[str]]:
    """The recipe that `--config` or `--recipe` names, and the other arguments."""
    config, rest = take_option(args, "config")
    if config is None:
        return take_recipe(app, rest)
    if "--recipe" in named_options(rest):
        raise UsageError(f"--config {config} has its own recipe; leave out --recipe.")
    return read_config_file(app, Path(config)), rest


def _open(job: _Job) -> tuple[Splits, Recipe]:
    """The data, and the recipe for their classes."""
    with distributed.main_first(), stage("reading annotations"):
        splits = open_splits(job.options.data, job.recipe)
    say(splits)
    say(job.line)
    if job.device.type == "cpu" and job.recipe.train.precision == "fp16":
        print("Note: CPUs have no fast fp16 convolutions; --train.precision bf16 is the fast one here.")
    recipe = with_counts(with_classes(job.recipe, splits.train.num_classes), splits.train)
    return splits, recipe.resolved()


def _build(app: App, job: _Job, recipe: Recipe, start: Weights | None) -> Detector:
    """The network, with the weights that a new run starts from."""
    seed_all(recipe.train.seed)
    model = app.network(recipe)
    if job.run is None:
        with distributed.main_first():
            print(initialize(model, recipe, job.options.weights, start, **_choice(job.options)))
    return model


def _choice(options: TrainOptions) -> dict[str, Any]:
    """What of the weights is taken."""
    return {
        "drop_class_head": options.drop_class_head,
        "drop_mismatched": options.drop_mismatched,
        "parts": options.weights_parts,
    }


def _evaluator(model: Detector, recipe: Recipe, splits: Splits, device: torch.device) -> Evaluator:
    """What evaluates the model as it is at any moment on the held-out split."""
    detector = functools.partial(
        Predictor,
        model,
        recipe.model(),
        splits.train.categories,
        device=device,
        precision=autocast_name(recipe.train.precision, device, recipe.train.loss_scale),
        batch_size=recipe.data.batch,
    )
    return Evaluator(detector, splits.val, workers=recipe.data.workers)


def _report(app: App, run: RunDirectory, evaluator: Evaluator, result: TrainResult, pictures: int) -> None:
    """Results and pictures, on disk and in the output."""
    had_ended = distributed.broadcast_object(not evaluator.metrics)  # and been evaluated, before it was resumed
    if had_ended:
        evaluator()
    if distributed.is_main():
        evaluator.write(run, pictures=pictures)
        evaluator.report(app, run, pictures=pictures)
        draw_curves(run, [f"{task}/{name}" for task in evaluator.metrics for name in ("AP", "AP50", "AP75")])
        if had_ended:  # else the training has printed them
            print_metrics(evaluator.metrics)
        print(f"{result.images_per_second:.1f} images/s in training.")
        print_places(run)
        print(f"Loss and AP over the steps: {run.curves}\nCheckpoints: {run.checkpoints}")
        print_next(app, run)
        print_final(result.images_per_second, evaluator.metrics)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _parse(
    app: App, recipe: Recipe, data: Path | None, args: list[str], *, resumed: bool
) -> tuple[TrainOptions, Recipe, str]:
    """Options and recipe, with rates, steps and intervals fitted to the batch before explicit options replace them."""
    options = read_options(app, "train", args, TrainOptions(recipe=recipe.name, values=recipe, data=data))
    parsed = options.values
    if parsed.detector.num_classes != recipe.detector.num_classes:
        raise UsageError("The number of classes is that of the data; leave out --detector.num-classes.")
    fitted, line = recipe.scaled_to_batch(parsed.data.batch)
    ratio = recipe.solver.reference_batch / fitted.reference_batch
    settings = dataclasses.replace(
        parsed.train,
        checkpoint_interval=_scaled(recipe.train.checkpoint_interval, ratio),
        evaluation_interval=_scaled(recipe.train.evaluation_interval, ratio),
    )
    solver = keep_explicit(fitted, parsed.solver, "solver", args)
    given = {"base_lr": f"learning rate {solver.base_lr:g}", "steps": f"{solver.steps} steps"}
    if chosen := [text for name, text in given.items() if getattr(solver, name) != getattr(fitted, name)]:
        line += f" Set by options instead: {', '.join(chosen)}."
    if not resumed:
        solver, said = fitted_schedule(fitted, solver, args)
        sizes, of_sizes = fitted_sizes(recipe.data, parsed.data, args)
        parsed, line = dataclasses.replace(parsed, data=sizes), line + said + of_sizes
        if "none" in (options.weights, options.weights or parsed.backbone.weights):
            parsed, said = without_frozen(parsed, args)
            line += said
    train = keep_explicit(settings, parsed.train, "train", args)
    return options, dataclasses.replace(parsed, solver=solver, train=train), line


def _restarted(args: list[str]) -> tuple[str | None, list[str]]:
    """What torchrun's next attempt goes on with: the run that the one before left in --output, if it got that far."""
    output, rest = take_option(args, "output")
    if output is None or not RunDirectory(output).is_resumable:
        return None, args
    for name in ("recipe", "weights", "data"):
        _, rest = take_option(rest, name)
    return output, rest


def _scaled(interval: int, ratio: float) -> int:
    """The interval in steps of another batch; 0 stays 0, which has a meaning of its own."""
    return max(1, round(interval * ratio)) if interval else 0


def _resumed(app: App, run: RunDirectory) -> tuple[Recipe, Path | None]:
    """Recipe and data of the run to go on with."""
    state, path, _ = checkpoint.load_first([path for path in (run.last, run.previous) if path.exists()])
    recipe, config = read_config(app, state, path)
    return recipe, None if config.get("data") is None else Path(config["data"])


def _refuse(options: TrainOptions, recipe: Recipe, run: RunDirectory) -> None:
    """Options that say where a run begins would be ignored when it goes on."""
    given = {
        "--recipe": options.recipe != recipe.name,
        "--config": options.config is not None,
        "--weights": options.weights is not None,
        "--weights-parts": bool(options.weights_parts),
        "--drop-mismatched": options.drop_mismatched,
        "--drop-class-head": options.drop_class_head,
        "--output": options.output is not None,
    }
    wrong = ", ".join(name for name, is_given in given.items() if is_given)
    if wrong:
        raise UsageError(f"A resumed run keeps its recipe, weights and directory; leave out {wrong}. The run is {run}.")
