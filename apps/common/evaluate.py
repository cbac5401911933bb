"""``eval``, and the evaluation within a training."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from apps.common.app import App
from apps.common.config import Recipe
from apps.common.data import data_root, evaluation_loader
from apps.common.options import default_output, new_run
from apps.common.pictures import draw_beside_truth
from apps.common.weights import Trained, load_trained
from det_coco import CocoIndex, default_splits, load_split
from det_coco import evaluate as coco_evaluate
from det_engine import EngineError, Precision, RunDirectory, distributed, resolve_device
from det_engine.cli import override
from det_models import Detector
from det_models.categories import reported
from det_models.inference import detect, optimize_for_inference, to_rows


class Evaluator:
    """Evaluates a model on one split; called for the metrics, keeps the detections of the last call.

    Several processes share the images; rank 0 gets all detections, and has the metrics.

    The labels are those of the split, unless `ids` names the category of each.

    Attributes:
        rows: detections in COCO's result format.
        metrics: {"bbox": {"AP": ...}, "segm": {...}}, fractions.
    """

    def __init__(
        self,
        model: Detector,
        recipe: Recipe,
        index: CocoIndex,
        device: torch.device,
        ids: Sequence[int | None] | None = None,
    ) -> None:
        self.model, self.recipe, self.index, self.device = model, recipe, index, device
        self.ids = index.category_ids if ids is None else ids
        self.rows: list[dict[str, Any]] = []
        self.metrics: dict[str, dict[str, float]] = {}

    def __call__(self) -> Mapping[str, Mapping[str, float]]:
        """Evaluate the model as it is now and return `metrics`."""
        precision = Precision(self.recipe.train.precision, self.device, self.recipe.train.loss_scale)
        batches = evaluation_loader(self.recipe, self.index)
        rows = []
        model = optimize_for_inference(self.model, self.device)
        for image_id, found in detect(model, batches, self.index, self.device, precision.autocast):
            rows += to_rows(found, self.ids, image_id)
        gathered = distributed.gather(rows)
        if gathered is None:
            return {}
        # In an order that does not depend on who detected what.
        self.rows = sorted((row for part in gathered for row in part), key=lambda row: row["image_id"])
        tasks = ("bbox", "segm") if self.recipe.has_masks and self.index.has_masks else ("bbox",)
        self.metrics = coco_evaluate(self.index, self.rows, tasks)
        return self.metrics

    def write(self, run: RunDirectory, *, pictures: int) -> None:
        """Write predictions.json and the first pictures of predictions beside the truth."""
        run.write_json(run.predictions, self.rows)
        draw_beside_truth(self.index, self.rows, run.pictures, pictures)


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """Options of `eval`."""

    weights: Path
    """Checkpoint of a run (checkpoints/best.pt), or a detector of another system."""
    recipe: str | None = None
    """For a file of another system: recipe whose images it gets; by default those of its system."""
    data: Path | None = None
    """Data set in the COCO layout; by default the embedded synthetic one."""
    split: str | None = None
    """Split to evaluate on; by default val2017, else val."""
    output: Path | None = None
    """Directory for results, predictions and pictures; by default runs/<app>/eval-<time>."""
    device: str = "auto"
    """auto, cpu, cuda or npu."""
    nproc: int = 1
    """Processes on this machine that share the images, each with its own device."""
    batch: int | None = None
    """Images at a time; by default as in training."""
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    """Number format of the forward pass."""
    pictures: int = 8
    """Images drawn beside the truth."""

    def __post_init__(self) -> None:
        if self.batch is not None and self.batch < 1:
            raise ValueError(f"batch must be at least 1, got {self.batch}")


def evaluate(app: App, args: list[str]) -> None:
    """Evaluate a checkpoint on a split: box and mask AP."""
    options = override(EvalOptions(weights=tyro.MISSING), args, f"apps/{app.name} eval", evaluate.__doc__)
    device = resolve_device(options.device)
    with distributed.processes(device):
        _evaluate(app, options, device)


def _evaluate(app: App, options: EvalOptions, device: torch.device) -> None:
    """The evaluation, in each of its processes."""
    trained = load_trained(app, options.weights, options.recipe)
    with distributed.main_first():
        root = data_root(options.data)
    index = load_split(root, options.split or default_splits(root)[1])
    ids = category_ids(trained, index, options.weights)
    recipe = dataclasses.replace(
        trained.recipe,
        train=dataclasses.replace(trained.recipe.train, precision=options.precision),
        data=dataclasses.replace(trained.recipe.data, batch=options.batch or trained.recipe.data.batch),
    )
    run = new_run(options.output or default_output(app, "eval"), options, device, replace=True)
    evaluator = Evaluator(trained.model, recipe, index, device, ids)
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


def category_ids(trained: Trained, index: CocoIndex, weights: Path) -> tuple[int | None, ...]:
    """Category id in the data of each label of a model.

    A file of another system may not say what its classes are, or only their names: then classes are the categories of
    the data in their order, if there are as many.

    Raises:
        EngineError: the model was trained on other categories; names the first differences.
    """
    known = reported(trained.categories)
    if known == dict(index.categories):
        return trained.ids
    same_names = tuple(known.values()) == tuple(index.categories.values())
    if len(trained.ids) == len(index.categories) and (trained.assumed or same_names):
        return index.category_ids
    there = dict(index.categories)
    only = ", ".join(f"{identifier} {name!r}" for identifier, name in sorted(known.items() ^ there.items())[:4])
    raise EngineError(
        f"Checkpoint {weights} was trained on {len(known)} categories, {index.annotation_file} has "
        f"{len(there)} that are not the same (they differ in {only}). Evaluate on data with the same categories."
    )


def print_metrics(metrics: Mapping[str, Mapping[str, float]]) -> None:
    """Print one line per task, without the classes' own figures."""
    for task, values in metrics.items():
        overall = {name: value for name, value in values.items() if "/" not in name}
        print(f"{task:<5}" + "".join(f"  {name} {value:.3f}" for name, value in overall.items()))
