"""``benchmark`` of several files with weights, checkpoints and exported ones, side by side."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import tyro

from apps.common.app import App
from apps.common.commands import read_options
from apps.common.detecting import on_categories, turns_upright
from apps.common.detecting_options import BenchmarkFilesOptions, DetectorOptions
from apps.common.evaluate import Evaluator
from apps.common.splits import open_split
from apps.common.weights import open_detector
from det_engine.stages import stage
from det_models import Predictor, Weights
from det_models.exported.weights import ExportedWeights

EXPORTED = (".onnx", ".xml", ".pt2", ".pte", ".json")
"""How the names of exported files and their cards end."""


def files_named(args: Sequence[str]) -> list[str]:
    """All that stands behind `--weights`."""
    if "--weights" not in args:
        return []
    rest = args[list(args).index("--weights") + 1 :]
    end = next((number for number, arg in enumerate(rest) if arg.startswith("--")), len(rest))
    return list(rest[:end])


def benchmark_files(app: App, args: list[str]) -> None:
    """Measure a picture's way through each file, in turns, and their AP."""
    options = read_options(app, "benchmark", args, BenchmarkFilesOptions(weights=tyro.MISSING))
    opened = [open_detector(app, path) for path in options.weights]
    first = opened[0]
    exif = turns_upright(first, DetectorOptions(weights=first.path))
    index = replace(open_split(options.data, options.split, first), exif=exif)
    # Naming its classes lets the data have others, of which there is no AP.
    detectors = [
        on_categories(weights, index, [str(name) for name in weights.categories.values()]).predictor(
            device=options.device
        )
        for weights in opened
    ]
    with stage("measuring", options.warmup + options.steps) as advance:
        seconds = _in_turns(detectors, [index.image(number % len(index)) for number in range(8)], options, advance)
    rows = []
    for weights, detector, taken in zip(opened, detectors, seconds, strict=True):
        metrics = Evaluator(lambda detector=detector: detector, index, workers=0)()
        found = " / ".join(f"{values['AP']:.4f}" for values in metrics.values()) or "-"
        rows.append((weights.path.name, _runtime(weights, detector), f"{_mebibytes(weights):.1f}", taken, found))
    _print(app, rows, options)


def _in_turns(
    detectors: Sequence[Predictor],
    pictures: Sequence[object],
    options: BenchmarkFilesOptions,
    advance: Callable[[int], None],
) -> list[float]:
    """Median seconds of a picture, from pixels to detections with masks, so that all meet the same load."""
    taken: list[list[float]] = [[] for _ in detectors]
    for number in range(options.warmup + options.steps):
        for detector, times in zip(detectors, taken, strict=True):
            began = time.perf_counter()
            detector.predict(pictures[number % len(pictures)])
            if number >= options.warmup:
                times.append(time.perf_counter() - began)
        advance(1)
    return [statistics.median(times) for times in taken]


def _runtime(weights: Weights, detector: Predictor) -> str:
    if isinstance(weights, ExportedWeights):
        return f"{weights.card['to']} {detector.precision}"
    return f"det {detector.precision}"


def _mebibytes(weights: Weights) -> float:
    files = list(weights.files.values()) if isinstance(weights, ExportedWeights) else [weights.path]
    files += [file.with_suffix(".bin") for file in files if file.suffix == ".xml"]
    return sum(file.stat().st_size for file in files) / 2**20


def _print(app: App, rows: Sequence[tuple[str, str, str, float, str]], options: BenchmarkFilesOptions) -> None:
    width, fastest = max(len(row[0]) for row in rows), min(row[3] for row in rows)
    print(f"{app.name}, a picture at a time, medians of {options.steps}, {torch.get_num_threads()} threads")
    print(f"{'file':<{width}}  {'runtime':<14} {'MiB':>7} {'ms/picture':>11} {'of the fastest':>15}  AP")
    for name, runtime, size, seconds, found in rows:
        print(f"{name:<{width}}  {runtime:<14} {size:>7} {seconds * 1e3:11.1f} {seconds / fastest:14.2f}x  {found}")
