"""Trained models in and out, and whatever `--weights` names into a network."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import cattrs

from apps.common.app import App, Detector
from apps.common.config import Recipe, from_dict, to_dict
from det_backbones import LoadReport, ResNet, WeightsError, find_weights, load_imagenet_weights, read_arrays
from det_engine import EngineError, checkpoint
from det_heads.checkpoints import CheckpointError, detect_system, load_reference


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A model as a run left it: recipe, categories (id -> name, by contiguous label), network with its weights."""

    recipe: Recipe
    categories: dict[int, str]
    model: Detector


def describe(app: App, recipe: Recipe, categories: dict[int, str]) -> dict[str, Any]:
    """What a checkpoint says of itself, enough to build its network again."""
    return {
        "app": app.name,
        "recipe": to_dict(recipe),
        "categories": [{"id": identifier, "name": name} for identifier, name in categories.items()],
    }


def read_config(app: App, state: Mapping[str, Any], path: Path) -> tuple[Recipe, dict[str, Any]]:
    """Recipe and whole configuration in a checkpoint of this app.

    Raises:
        EngineError: the checkpoint is of another app, of none, or of another version of the recipe.
    """
    config = state.get("config") or {}
    if config.get("app") != app.name:
        raise EngineError(
            f"Checkpoint {path} is of {config.get('app') or 'no app'}, not of {app.name}. "
            + (f"Use apps/{config['app']}." if config.get("app") else "Give a checkpoint of a run.")
        )
    try:
        return from_dict(config["recipe"], app.kind), config
    except (cattrs.BaseValidationError, KeyError, TypeError, ValueError) as error:
        raise EngineError(f"Checkpoint {path} was written by another version; its recipe cannot be read.") from error


def load_trained(app: App, path: Path) -> Trained:
    """The model of a checkpoint that an app of ours wrote.

    Raises:
        EngineError: the file is missing, damaged, not ours, of another app or of another version of the recipe.
    """
    state = checkpoint.load(path)
    recipe, config = read_config(app, state, path)
    model = app.network(recipe)
    checkpoint.load_model(model, checkpoint.weights(state), path)
    return Trained(
        recipe=recipe, categories={entry["id"]: entry["name"] for entry in config["categories"]}, model=model
    )


def initialize(model: Detector, recipe: Recipe, weights: str | None) -> str:
    """Load what `--weights` asks for and say in one line what was done.

    Args:
        model: network to fill.
        recipe: names the ImageNet weights it expects.
        weights: None: those of the recipe; ``none``: random; else a checkpoint of ours, a detector of detectron2,
            torchvision or maskrcnn-benchmark, or ImageNet weights of a ResNet; told apart by content.

    Raises:
        WeightsError, CheckpointError, EngineError: missing, damaged, or of another architecture.
    """
    name = recipe.backbone.weights if weights is None else weights
    if name == "none":
        return "Weights: random."
    path = find_weights(name)
    if checkpoint.is_checkpoint(path):
        checkpoint.load_model(model, checkpoint.weights(checkpoint.load(path)), path)
        return f"Weights: {path} (a run of ours)."
    try:
        arrays = read_arrays(path)
        system = detect_system(arrays)
    except CheckpointError:
        report = load_imagenet_weights(cast(ResNet, model.backbone.body), path)
        _check_conventions(report, recipe, path)
        return f"Weights: backbone from {path} ({report.format}, {len(report.matched)} tensors)."
    report = load_reference(model, arrays, system)
    return f"Weights: {path} ({system}, {len(report.matched)} tensors)."


def _check_conventions(report: LoadReport, recipe: Recipe, path: Path) -> None:
    """Refuse weights that fit by shape but expect other pixels or strides: they would load, and train badly."""
    pixels, stride = recipe.detector.pixels, report.stride_in_1x1
    wrong = []
    if report.pixels.order != pixels.order:
        wrong.append(f"{report.pixels.order.upper()} pixels (the recipe feeds {pixels.order.upper()})")
    if stride is not None and recipe.backbone.depth >= 50 and stride != recipe.backbone.stride_in_1x1:
        wrong.append(f"the stride in the {'1x1' if stride else '3x3'} convolution (the recipe has it in the other)")
    if wrong:
        raise WeightsError(
            f"{path} is of the {report.format} family, which expects {' and '.join(wrong)}. Use the recipe's own "
            f"weights {recipe.backbone.weights}, or set "
            "--detector.pixels.* and --backbone.stride-in-1x1 to fit the file."
        )
