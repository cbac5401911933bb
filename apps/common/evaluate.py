"""``eval``, and the evaluation within a training."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
import tyro

from apps.common.app import App
from apps.common.commands import read_options
from apps.common.data import evaluation_loader
from apps.common.detecting import (
    loading_of,
    on_categories,
    open_options,
    predictor,
    say_what_was_read,
    turns_upright,
)
from apps.common.detecting_options import EvalOptions
from apps.common.output import default_output, new_run
from apps.common.pictures import draw_beside_truth
from apps.common.printing import print_classes, print_final, print_metrics, print_next, print_places
from apps.common.report import report_run
from apps.common.splits import open_split
from det_coco import CocoIndex, Detections, Protocol, save_results
from det_coco import evaluate as coco_evaluate
from det_engine import RunDirectory, distributed, resolve_device
from det_engine.stages import stage
from det_models import Detections as Found
from det_models import Predictor

_COCO_LIMIT, _LVIS_LIMIT = 100, 300
"""Detections of an image that count."""


class Evaluator:
    """Evaluates a detector on one split; called for the metrics, keeps the detections of the last call.

    Several processes share the images; rank 0 gets all detections, and has the metrics.

    Args:
        detector: makes the detector as it is when the evaluation begins.
        index: the split, whose categories are the detector's.
        workers: processes that load images.
        min_score: leave out what has a lower score.
        protocol: thresholds and sizes; the classes are the detector's, and so is the limit of detections that count
            where it gives more than 100.
        looks: how images are looked at, if not once each: arguments of `Predictor.predict`.

    Attributes:
        protocol: the rules of the last call, classes and limit included.
        detections: of all images, by ascending image id.
        metrics: {"bbox": {"AP": ...}, "segm": {...}}, fractions.
    """

    def __init__(
        self,
        detector: Callable[[], Predictor],
        index: CocoIndex,
        *,
        workers: int,
        min_score: float = 0.0,
        protocol: Protocol | None = None,
        looks: Mapping[str, Any] | None = None,
    ) -> None:
        self.looks = looks or {}
        self.detector, self.index, self.workers, self.min_score = detector, index, workers, min_score
        self.rules = self.protocol = protocol or Protocol()
        self.detections = Detections.concatenate(())
        self.metrics: dict[str, dict[str, float]] = {}

    def __call__(self) -> Mapping[str, Mapping[str, float]]:
        """Evaluate the detector as it is now and return `metrics`."""
        detector = self.detector()
        gathered = distributed.gather_object(Detections.concatenate(list(self._detect(detector))))
        if gathered is None:
            return {}
        self.detections = Detections.concatenate(gathered).sorted()
        with stage("evaluating"):
            tasks = comparable(self.index, detector.tasks, say=not self.metrics)
            self.protocol = protocol_of(detector, self.index, self.rules)
            self.metrics = coco_evaluate(self.index, self.detections, tasks, protocol=self.protocol)
        return self.metrics

    def _detect(self, detector: Predictor) -> Iterator[Detections]:
        """Detections of this process's images, image by image."""
        with stage("detecting", len(self.index)) as advance:
            for identifiers, results in self._one_by_one(detector) if self.looks else self._in_batches(detector):
                for identifier, found in zip(identifiers, results, strict=True):
                    if identifier >= 0:  # the others fill up the last batch
                        yield found[found.scores >= self.min_score].to_arrays(identifier)
                advance(distributed.world_size() * sum(i >= 0 for i in identifiers))

    def _in_batches(self, detector: Predictor) -> Iterator[tuple[list[int], list[Found]]]:
        batches = evaluation_loader(
            detector.config,
            self.index,
            batch=detector.batch_size,
            workers=self.workers,
            tight=detector.shape.tight,
        )
        for batch in batches:
            identifiers = batch["image_ids"].tolist()
            sizes = [self.index.image_size(i) if i >= 0 else (1, 1) for i in identifiers]
            yield identifiers, detector.detect(batch, sizes)

    def _one_by_one(self, detector: Predictor) -> Iterator[tuple[list[int], list[Found]]]:
        """Those of which each is several batches."""
        positions = range(distributed.rank(), len(self.index), distributed.world_size())
        results = detector.predict(map(self.index.image, positions), **self.looks)
        for position, found in zip(positions, results, strict=True):
            yield [int(self.index.image_ids[position])], [found]

    def write(self, run: RunDirectory, *, pictures: int) -> None:
        """Write predictions.json and the first pictures of predictions beside the truth."""
        with stage("writing predictions"):
            save_results(self.detections, run.predictions)
        draw_beside_truth(self.index, self.detections, run.pictures, pictures)

    def report(self, app: App, run: RunDirectory, *, pictures: int) -> None:
        """Write report.html, with so many pictures of each kind."""
        report_run(app, run, self.index, self.detections, self.metrics, self.protocol, pictures)


def comparable(index: CocoIndex, tasks: Sequence[str], *, say: bool = True) -> tuple[str, ...]:
    """The tasks for which a split has truth.

    Args:
        index: the split.
        tasks: IoU types of a detector, such as `bbox` and `segm`.
        say: print a line about those for which it has none.
    """
    missing = index.missing
    for task in tasks if say else ():
        if task in missing:
            print(f"{index.annotation_file} has no {missing[task]}, so there is no {task} AP.")
    return tuple(task for task in tasks if task not in missing)


def protocol_of(detector: Predictor, index: CocoIndex, rules: Protocol) -> Protocol:
    """The rules of a detector's evaluation: LVIS's on federated data, its own classes, and all that it finds counts.

    Args:
        detector: what is evaluated.
        index: on what.
        rules: thresholds and sizes.
    """
    federated = index.federation is not None
    usual = _LVIS_LIMIT if federated else _COCO_LIMIT
    most = detector.max_detections or detector.config.max_detections
    limit: int | Literal["coco"] = most if most > usual else usual if federated else "coco"
    chosen = None if detector.categories == index.categories else tuple(detector.categories)
    return replace(rules, max_detections=limit, classes=chosen, federated=federated)


def evaluate(app: App, args: list[str]) -> None:
    """Evaluate a checkpoint on a split: box and mask AP."""
    options = read_options(app, "eval", args, EvalOptions(weights=tyro.MISSING))
    device = resolve_device(options.device)
    with distributed.processes(device, options.hang_seconds):
        _evaluate(app, options, device)


def _evaluate(app: App, options: EvalOptions, device: torch.device) -> None:
    """The evaluation, in each of its processes."""
    weights = open_options(app, options)
    with distributed.main_first(), stage("reading annotations"):
        index = replace(open_split(options.data, options.split, weights), exif=turns_upright(weights, options))
    if options.images:
        index = index.of_images(options.images)
    batch, workers = loading_of(app, options, weights)
    detector = predictor(on_categories(weights, index, options.classes), options, device, batch)
    say_what_was_read(weights)
    run = new_run(options.output or default_output(app, "eval"), options, device, replace=True)
    evaluator = Evaluator(
        lambda: detector,
        index,
        workers=workers,
        min_score=options.min_score,
        protocol=options.protocol(),
        looks=options.looks,
    )
    began = time.perf_counter()
    evaluator()
    speed = len(index) / (time.perf_counter() - began)
    if not distributed.is_main():
        return
    run.write_json(run.results, {**evaluator.metrics, "images_per_second": speed})
    evaluator.write(run, pictures=options.pictures)
    if not evaluator.metrics:
        print(f"{speed:.1f} images/s. Detections, in COCO's results format with the ids of the data: {run.predictions}")
        return
    evaluator.report(app, run, pictures=options.pictures)
    print_metrics(evaluator.metrics)
    if options.per_class:
        print_classes(index, evaluator.protocol, evaluator.metrics)
    print(f"{speed:.1f} images/s, loading and evaluation included.")
    print_places(run)
    print_next(app, options.weights)
    print_final(speed, evaluator.metrics)
