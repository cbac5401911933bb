"""``eval``, and the evaluation within a training."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from apps.common.app import App
from apps.common.data import data_root, evaluation_loader
from apps.common.detecting import (
    DetectorOptions,
    check_score,
    loading_of,
    on_categories,
    open_options,
    predictor,
    say_what_was_read,
)
from apps.common.options import default_output, new_run
from apps.common.pictures import draw_beside_truth
from det_coco import CocoIndex, Protocol, default_splits, load_split
from det_coco import evaluate as coco_evaluate
from det_engine import RunDirectory, distributed, resolve_device
from det_engine.options import override
from det_models import Predictor


class Evaluator:
    """Evaluates a detector on one split; called for the metrics, keeps the detections of the last call.

    Several processes share the images; rank 0 gets all detections, and has the metrics.

    Args:
        detector: makes the detector as it is when the evaluation begins.
        index: the split, whose categories are the detector's.
        workers: processes that load images.
        min_score: leave out what has a lower score.

    Attributes:
        rows: detections in COCO's result format.
        metrics: {"bbox": {"AP": ...}, "segm": {...}}, fractions.
    """

    def __init__(
        self, detector: Callable[[], Predictor], index: CocoIndex, *, workers: int, min_score: float = 0.0
    ) -> None:
        self.detector, self.index, self.workers, self.min_score = detector, index, workers, min_score
        self.rows: list[dict[str, Any]] = []
        self.metrics: dict[str, dict[str, float]] = {}

    def __call__(self) -> Mapping[str, Mapping[str, float]]:
        """Evaluate the detector as it is now and return `metrics`."""
        detector = self.detector()
        gathered = distributed.gather_object(list(self._rows(detector)))
        if gathered is None:
            return {}
        # In an order that does not depend on who detected what.
        self.rows = sorted((row for part in gathered for row in part), key=lambda row: row["image_id"])
        chosen = None if detector.categories == self.index.categories else tuple(detector.categories)
        self.metrics = coco_evaluate(self.index, self.rows, detector.tasks, protocol=Protocol(classes=chosen))
        return self.metrics

    def _rows(self, detector: Predictor) -> Any:
        for batch in evaluation_loader(detector.config, self.index, batch=detector.batch_size, workers=self.workers):
            identifiers = batch["image_ids"].tolist()
            sizes = [self.index.image_size(i) if i >= 0 else (1, 1) for i in identifiers]
            for identifier, found in zip(identifiers, detector.detect(batch, sizes), strict=True):
                if identifier >= 0:  # the others fill up the last batch
                    yield from found[found.scores >= self.min_score].to_coco(identifier)

    def write(self, run: RunDirectory, *, pictures: int) -> None:
        """Write predictions.json and the first pictures of predictions beside the truth."""
        run.write_json(run.predictions, self.rows)
        draw_beside_truth(self.index, self.rows, run.pictures, pictures)


@dataclass(frozen=True, kw_only=True)
class EvalOptions(DetectorOptions):
    """Options of `eval`."""

    min_score: float = 0.0
    """Leave out detections with a lower score, which lowers AP: it counts all of them, best first."""
    data: Path | None = None
    """Data set in the COCO layout; by default the embedded synthetic one."""
    split: str | None = None
    """Split to evaluate on; by default val2017, else val."""
    output: Path | None = None
    """Directory for results, predictions and pictures; by default runs/<app>/eval-<time>."""
    nproc: int = 1
    """Processes on this machine that share the images, each with its own device."""
    pictures: int = 8
    """Images drawn beside the truth."""

    def __post_init__(self) -> None:
        DetectorOptions.__post_init__(self)
        check_score(self.min_score)


def evaluate(app: App, args: list[str]) -> None:
    """Evaluate a checkpoint on a split: box and mask AP."""
    options = override(EvalOptions(weights=tyro.MISSING), args, f"apps/{app.name} eval", evaluate.__doc__)
    device = resolve_device(options.device)
    with distributed.processes(device):
        _evaluate(app, options, device)


def _evaluate(app: App, options: EvalOptions, device: torch.device) -> None:
    """The evaluation, in each of its processes."""
    weights = open_options(app, options)
    with distributed.main_first():
        root = data_root(options.data)
    keypoints = "keypoints" in weights.network().tasks
    split = options.split or default_splits(root, keypoints=keypoints)[1]
    index = load_split(root, split, keypoints=keypoints)
    batch, workers = loading_of(weights)
    detector = predictor(on_categories(weights, index), options, device, batch)
    say_what_was_read(weights)
    run = new_run(options.output or default_output(app, "eval"), options, device, replace=True)
    evaluator = Evaluator(lambda: detector, index, workers=workers, min_score=options.min_score)
    began = time.perf_counter()
    evaluator()
    speed = len(index) / (time.perf_counter() - began)
    if not distributed.is_main():
        return
    run.write_json(run.results, {**evaluator.metrics, "images_per_second": speed})
    evaluator.write(run, pictures=options.pictures)
    print_metrics(evaluator.metrics)
    print(f"{speed:.1f} images/s, loading and evaluation included. Results and pictures: {run}")
    print_final(speed, evaluator)


def print_final(images_per_second: float, evaluator: Evaluator) -> None:
    """Print the lines that the tools of Ascend's model zoo look for."""
    task = "segm" if "segm" in evaluator.metrics else "bbox"
    print("------------------ Final result ------------------")
    print(f"Final Performance images/sec : {images_per_second:.2f}")
    print(f"Final Train Accuracy : {evaluator.metrics[task]['AP']:.4f}")


def print_metrics(metrics: Mapping[str, Mapping[str, float]]) -> None:
    """Print one line per task, without the classes' own figures."""
    for task, values in metrics.items():
        overall = {name: value for name, value in values.items() if "/" not in name}
        print(f"{task:<5}" + "".join(f"  {name} {value:.3f}" for name, value in overall.items()))
