"""``benchmark``: images per second of the training step, of inference, and of detecting picture by picture."""

import statistics
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import cast

import torch

from apps.common.app import App, with_classes, with_counts
from apps.common.benchmark_files import EXPORTED, benchmark_files, files_named
from apps.common.commands import read_options, take_recipe
from apps.common.data import evaluation_loader, training_batches
from apps.common.learning_options import BenchmarkOptions
from apps.common.splits import open_splits
from apps.common.weights import initialize, open_start
from det_coco import Batch
from det_engine import EngineError, Precision, TrainStep, distributed, peak_memory_mib, resolve_device, seed_all
from det_engine.cli import take_option
from det_models import Detector, Weights
from det_models.checkpoints import Checkpoint
from det_models.inference import optimize_for_inference


def benchmark(app: App, args: list[str]) -> None:
    """Measure images per second: loading, training step, inference, frame by frame; or files side by side."""
    named = files_named(args)
    if len(named) > 1 or any(Path(name).suffix in EXPORTED for name in named):
        benchmark_files(app, args)
        return
    recipe, rest = take_recipe(app, args)
    weights, _ = take_option(args, "weights", "none")
    found = open_start(weights)
    if found is not None and found.kind == "detector":
        named, _ = take_option(args, "recipe")
        checkpoint = cast("Checkpoint", found.tensors)
        recipe = app.kind.of(checkpoint) if named is None else recipe.under(checkpoint)
    default = BenchmarkOptions(recipe=recipe.name, config=recipe)
    options = read_options(app, "benchmark", rest, default)
    device = resolve_device(options.device)
    with distributed.processes(device, options.config.train.hang_seconds):
        _benchmark(app, options, device, found)


def _benchmark(app: App, options: BenchmarkOptions, device: torch.device, weights: Weights | None) -> None:
    """The measurement, in each of its processes."""
    recipe = options.config
    classes = len(weights.categories) if weights is not None and weights.kind == "detector" else None
    with distributed.main_first():
        splits = open_splits(options.data, recipe)
    if classes is not None and classes < splits.train.num_classes:
        raise EngineError(
            f"{options.weights} knows {classes} classes and {splits.root} has {splits.train.num_classes}; "
            "measure on data with at most as many."
        )
    recipe = with_classes(recipe, classes or splits.train.num_classes)
    recipe = (recipe if classes else with_counts(recipe, splits.train)).resolved()
    seed_all(recipe.train.seed)
    model = app.network(recipe)
    with distributed.main_first():
        print(initialize(model, recipe, options.weights, weights))
    make_step = TrainStep(model, recipe.solver, recipe.train, device)
    precision = make_step.precision
    stream = training_batches(recipe, splits.train, 0, pin_memory=device.type != "cpu")

    def load() -> dict[str, torch.Tensor]:
        return next(stream)

    loading = _times(load, options, device)
    # A handful of batches resident on the device: the step is timed without the loader.
    batches = [{name: value.to(device) for name, value in batch.items()} for batch in islice(stream, 4)]
    turn = 0

    launching = []

    def step() -> None:
        nonlocal turn
        turn += 1
        began = time.perf_counter()
        make_step(batches[turn % len(batches)], turn, recipe.solver.base_lr)
        launching.append(time.perf_counter() - began)

    pictures = [
        ({name: value.to(device) for name, value in batch.items()}, splits.val.image_size(int(batch["image_ids"])))
        for batch in islice(evaluation_loader(recipe.model(), splits.val, batch=1, workers=recipe.data.workers), 4)
        if int(batch["image_ids"]) >= 0  # the others fill up this process's share
    ]
    inference, frames = _inference(model, batches, pictures, precision, options, device)
    training = _times(step, options, device)
    exchanging = _times(make_step.exchange, options, device) if distributed.world_size() > 1 else 0.0
    batch = recipe.data.batch
    processes = distributed.world_size()
    where = f"in {processes} processes on {device}" if processes > 1 else f"on {device}"
    setting = f"{batch} images a step {where}, {recipe.train.precision}"
    print(f"{app.name} {recipe.name}, {setting}, medians of {options.steps}")
    for name, seconds in (("loading", loading), ("training step", training), ("inference", inference)):
        print(f"{name:<14} {seconds * 1000:9.1f} ms/batch {batch / seconds:9.1f} images/s")
    # What YOLACT's own benchmark times: one picture at a time, masks at its size included, loading and drawing not.
    print(f"{'frame by frame':<14} {frames * 1000:9.1f} ms/frame {1 / frames:9.1f} frames/s")
    if exchanging:
        print(f"{'exchange':<14} {exchanging * 1000:9.1f} ms for the gradients alone, without overlap")
    memory = peak_memory_mib(device)
    if memory is not None:
        print(f"{'peak memory':<14} {memory:9.0f} MiB")
    # Workers load beside the step; without them loading and step take turns.
    end = max(loading, training) if recipe.data.workers else loading + training
    host = statistics.median(launching[options.warmup :])
    bound = _bound(loading, training, host if device.type != "cpu" else 0.0, exchanging)
    print(f"Training runs at about {batch / end:.1f} images/s, bound by {bound}.")


def _inference(
    model: Detector,
    batches: Sequence[Batch],
    pictures: Sequence[tuple[Batch, tuple[int, int]]],
    precision: Precision,
    options: BenchmarkOptions,
    device: torch.device,
) -> tuple[float, float]:
    """Seconds of a batch until its detections are there, and of a picture (with its size) until its masks are."""
    detector = optimize_for_inference(model, device)
    next_batch, next_picture = cycle(batches), cycle(pictures)

    def detect(batch: Batch) -> dict[str, torch.Tensor]:
        with precision.autocast():
            return detector({name: batch[name] for name in ("images", "image_sizes")})

    @torch.inference_mode()
    def infer() -> None:
        detect(next(next_batch))

    @torch.inference_mode()
    def frame() -> None:
        batch, size = next(next_picture)
        detector.to_image(detect(batch), batch["scales"], [size])

    return _times(infer, options, device), _times(frame, options, device)


def _bound(loading: float, training: float, host: float, exchanging: float) -> str:
    """What a training step waits for most."""
    if loading > training:
        return "loading (more --data.workers, or smaller images)"
    if exchanging > training / 2:
        return "the exchange of gradients between the processes"
    if host > 0.9 * training:
        return "the host, which launches the step's kernels (--train.capture True)"
    return "the training step"


def _times(action: Callable[[], object], options: BenchmarkOptions, device: torch.device) -> float:
    """Median seconds of an action, the device's queue emptied before and after each."""
    taken = []
    for number in range(options.warmup + options.steps):
        _wait(device)
        began = time.perf_counter()
        action()
        _wait(device)
        if number >= options.warmup:
            taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
