"""Trained models in and out, and whatever `--weights` names into a network."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cattrs
from det_backbones import find_weights, load_imagenet_weights, read_arrays
from det_engine import EngineError, checkpoint
from det_heads import CheckpointError, TwoStageDetector, detect_system, load_reference

from apps.common.app import App
from apps.common.config import Recipe, from_dict, to_dict


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A model as a run left it: recipe, categories (id -> name, by contiguous label), network with its weights."""

    recipe: Recipe
    categories: dict[int, str]
    model: TwoStageDetector


def describe(app: App, recipe: Recipe, categories: dict[int, str]) -> dict[str, Any]:
    """What a checkpoint says of itself, enough to build its network again."""
    return {
        "app": app.name,
        "recipe": to_dict(recipe),
        "categories": [{"id": identifier, "name": name} for identifier, name in categories.items()],
    }


def load_trained(app: App, path: Path) -> Trained:
    """The model of a checkpoint that an app of ours wrote.

    Raises:
        EngineError: the file is missing, damaged, not ours, of another app or of another version of the recipe.
    """
    state = checkpoint.load(path)
    config = state.get("config") or {}
    if config.get("app") != app.name:
        raise EngineError(
            f"Checkpoint {path} is of {config.get('app') or 'no app'}, not of {app.name}. "
            + (f"Use apps/{config['app']}." if config.get("app") else "Give a checkpoint of a run.")
        )
    try:
        recipe = from_dict(config["recipe"])
    except (cattrs.BaseValidationError, KeyError, TypeError) as error:
        raise EngineError(f"Checkpoint {path} was written by another version; its recipe cannot be read.") from error
    model = app.build(recipe)
    checkpoint.load_model(model, state["model"], path)
    return Trained(
        recipe=recipe, categories={entry["id"]: entry["name"] for entry in config["categories"]}, model=model
    )


def initialize(model: TwoStageDetector, recipe: Recipe, weights: str | None) -> str:
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
        checkpoint.load_model(model, checkpoint.load(path)["model"], path)
        return f"Weights: {path} (a run of ours)."
    try:
        arrays = read_arrays(path)
        system = detect_system(arrays)
    except CheckpointError:
        body = model.backbone.body
        report = load_imagenet_weights(body, path)
        return f"Weights: backbone from {path} ({report.format}, {len(report.matched)} tensors)."
    report = load_reference(model, arrays, system)
    return f"Weights: {path} ({system}, {len(report.matched)} tensors)."
