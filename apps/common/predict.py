"""``predict``: pictures in, detections and drawings out."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro

from apps.common.app import App
from apps.common.config import Recipe
from apps.common.data import batch_shape
from apps.common.options import PACKAGES, default_output
from apps.common.pictures import draw_predictions
from apps.common.weights import load_trained
from det_coco import BatchShape, DataError, Resize, Sample, list_images, load_image, make_batch, to_results
from det_engine import Precision, RunDirectory, describe_environment, resolve_device
from det_engine.cli import override


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """Options of `predict`."""

    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Pictures or folders of pictures."""
    weights: Path
    """Checkpoint of a run (checkpoints/best.pt)."""
    output: Path | None = None
    """Directory for predictions.json and pictures; by default runs/<app>/predict-<time>."""
    device: str = "auto"
    """auto, cpu, cuda or npu."""
    min_score: float = 0.5
    """Detections below it are written but not drawn."""
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    """Number format of the forward pass."""


def predict(app: App, args: list[str]) -> None:
    """Detect objects in pictures: COCO-result JSON and drawings."""
    options = override(
        PredictOptions(inputs=(), weights=tyro.MISSING), args, f"apps/{app.name} predict", predict.__doc__
    )
    device = resolve_device(options.device)
    paths = _pictures(options.inputs)
    trained = load_trained(app, options.weights)
    run = RunDirectory.create(
        options.output or default_output(app, "predict"),
        config=options,
        environment=describe_environment(device, PACKAGES),
        replace=True,
    )
    model, precision = trained.model.to(device).eval(), Precision(options.precision, device)
    rows: list[dict[str, Any]] = []
    try:
        for number, (path, image, batch) in enumerate(_batches(trained.recipe, paths), start=1):
            with torch.inference_mode(), precision.autocast():
                found = model({name: batch[name].to(device) for name in ("images", "image_sizes")})
            (detections,) = model.to_image(found, batch["scales"], [image.shape[:2]])
            mine = to_results(
                tuple(trained.categories),
                number,
                detections.boxes.numpy(),
                detections.scores.numpy(),
                detections.labels.numpy(),
                detections.masks,
            )
            rows += [{**row, "file_name": str(path)} for row in mine]
            drawn = run.pictures / f"{number:05d}-{path.stem}.png"
            shown = draw_predictions(image, mine, trained.categories, drawn, options.min_score)
            print(f"{path}: {len(mine)} detections, {shown} drawn")
    finally:
        # A picture that cannot be read ends the command; what was found before it stays.
        run.write_json(run.predictions, rows)
    print(f"Predictions and pictures: {run}")


def _pictures(inputs: tuple[Path, ...]) -> list[Path]:
    if not inputs:
        raise DataError("predict needs at least one picture or folder of pictures.")
    return [picture for path in inputs for picture in list_images(path)]


def _batches(recipe: Recipe, paths: list[Path]) -> Iterator[tuple[Path, np.ndarray, dict[str, torch.Tensor]]]:
    """Each picture with its batch of one, resized as in the recipe's evaluation."""
    data = recipe.data
    resize = Resize(shortest=(data.test_size,), longest=data.max_size, rule=data.rounding)
    shape: BatchShape = dataclasses.replace(batch_shape(recipe), masks="none")
    for path in paths:
        image = load_image(path)
        height, width = resize.output_size(*image.shape[:2])
        sample = Sample(
            image=resize.apply(image, height, width),
            image_id=0,
            scale=(height / image.shape[0], width / image.shape[1]),
            boxes=np.zeros((0, 4), dtype=np.float32),
            labels=np.zeros(0, dtype=np.int64),
            crowd=np.zeros(0, dtype=bool),
        )
        yield path, image, make_batch([sample], shape, truth=False)
