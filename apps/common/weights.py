"""Whatever `--weights` names, for an app: the networks that it trains, and what a training starts from."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import cattrs

import det_models
from apps.common.app import App, app_of
from apps.common.config import R, Recipe, from_dict, to_dict
from det_backbones import WEIGHTS, LoadReport, ResNet, TimmBody, WeightsError, find_weights, load_imagenet_weights
from det_engine import EngineError
from det_engine.cli import UsageError, unknown
from det_models import CheckpointError, Detector, Weights, find_published, open_weights
from det_models.adopting import changes
from det_models.checkpoints import ArchitectureError, Checkpoint, ClassCountError


def describe(
    app: App, recipe: Recipe, categories: Mapping[int, str | None], limbs: Iterable[tuple[int, int]] = ()
) -> dict[str, Any]:
    """What a checkpoint says of itself: enough to build its network again, and how it was trained."""
    return {"app": app.name, "recipe": to_dict(recipe), **det_models.describe(recipe.model(), categories, limbs)}


def read_config_file(app: App[R], path: Path) -> R:
    """The recipe in a `config.json`, as a run leaves it.

    Raises:
        EngineError: the file cannot be read, or is of another app or version.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EngineError(f"Configuration {path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise EngineError(f"Configuration {path} is damaged, or no JSON: {error}.") from error
    if not isinstance(config, Mapping):
        raise EngineError(f"Configuration {path} is not what a run leaves: it holds no values by name.")
    return cast(R, read_config(app, {"config": config}, path, what="Configuration")[0])


def read_config(
    app: App, state: Mapping[str, Any], path: Path, what: str = "Checkpoint"
) -> tuple[Recipe, dict[str, Any]]:
    """Recipe and whole configuration in a checkpoint of this app, to go on with its training.

    Raises:
        EngineError: the checkpoint is of another app, of none, or of another version of the recipe.
    """
    config = state.get("config") or {}
    owner = config.get("app")
    if owner != app.name:
        named = owner if isinstance(owner, str) and owner else None
        raise EngineError(
            f"{what} {path} is of {named or 'no app'}, not of {app.name}. "
            + (f"Use apps/{named}." if named else "Give that of a run.")
        )
    try:
        return from_dict(config["recipe"], app.kind), config
    except (cattrs.BaseValidationError, KeyError, TypeError, ValueError) as error:
        raise EngineError(
            f"{what} {path} was written by another version, or is damaged: its recipe cannot be read."
        ) from error


def open_detector(app: App, path: Path, recipe: str | None = None) -> Weights:
    """A file with a trained detector of this app, ours or another system's.

    Args:
        app: which networks it trains.
        path: the file, or the folder of a run; what it is follows from its content.
        recipe: name of the recipe whose images a file of another system gets; by default those of its system.

    Raises:
        WeightsError, CheckpointError: the file is missing, damaged, of another app or of another version, or holds no
            detector that can be built here.
        UsageError: there is no such recipe, or the checkpoint has its own.
    """
    if recipe is not None and recipe not in app.recipes:
        raise unknown("recipe", recipe, app.recipes)
    weights = open_weights(path)
    weights.network()
    _refuse_other_app(app, weights)
    if recipe is None:
        return weights
    if weights.kind in ("run", "exported"):
        raise UsageError(f"{path} has its own recipe; leave out --recipe.")
    return weights.on_images_of(app.recipes[recipe]().model())


def open_start(weights: str | None) -> Weights | None:
    """What a training starts from, where `--weights` names a file or the folder of a run.

    Raises:
        WeightsError, CheckpointError: it cannot be read, or is an exported file, which can only be run.
    """
    if weights is None or weights == "none" or (weights in WEIGHTS and not Path(weights).exists()):
        return None
    known = Path(weights).is_dir() or find_published(weights) is not None
    found = open_weights(weights if known else find_weights(weights))
    if found.kind == "exported":
        found.report()  # which says what to name instead
    return found


def adopt(app: App[R], recipe: R, weights: Weights | None, *, some: bool = False) -> tuple[R, list[str]]:
    """The recipe under the conventions of the weights that it is to start from, and what that changed.

    Only a detector of another system has such conventions.

    Args:
        app: which networks it trains.
        recipe: what is to be trained.
        weights: what it starts from.
        some: whether only some of them are taken, which may then be those of another app's detector.

    Raises:
        CheckpointError: it belongs to another app.
    """
    if weights is None or weights.kind != "detector":
        return recipe, []
    if some and weights.model is not None and app_of(weights.model.detector) != app.name:
        body = {name: getattr(weights.model.backbone, name) for name in ("stride_in_1x1", "norm_eps")}
        adopted = replace(
            recipe,
            backbone=replace(recipe.backbone, **body),
            detector=replace(recipe.detector, pixels=weights.model.detector.pixels),
        )
        return adopted, changes(recipe, adopted)
    _refuse_other_app(app, weights)
    adopted = recipe.under(cast(Checkpoint, weights.tensors))
    return adopted, changes(recipe, adopted)


def initialize(
    model: Detector,
    recipe: Recipe,
    name: str | None,
    weights: Weights | None = None,
    *,
    drop_class_head: bool = False,
    drop_mismatched: bool = False,
    parts: Sequence[str] = (),
) -> str:
    """Load what `--weights` asks for and say what was done.

    Args:
        model: network to fill.
        recipe: names the ImageNet weights it expects.
        name: None: those of the recipe; ``none``: random; else what `weights` was opened from, or the name of
            catalogued ImageNet weights.
        weights: what :func:`open_start` read.
        drop_class_head: leave out the layers that tell classes apart, where the file has another number of classes.
        drop_mismatched: leave out whatever does not fit.
        parts: names of parts to take; empty: all.

    Raises:
        WeightsError, CheckpointError: missing, damaged, or of another architecture.
    """
    if weights is None:
        name = recipe.backbone.weights if name is None else name
        if name == "none":
            return "Weights: random."
        weights = open_weights(find_weights(name))
    path = weights.path
    if weights.tensors is None:
        loaded = load_imagenet_weights(cast(ResNet | TimmBody, model.backbone.body), path, weights.file)
        _check_conventions(loaded, recipe, path)
        return f"Weights: backbone from {path} ({loaded})."
    try:
        report = weights.fill(model, drop_class_head=drop_class_head, drop_mismatched=drop_mismatched, parts=parts)
    except ClassCountError as error:
        raise ClassCountError(f"{error} To do so, train with --drop-class-head True.") from error
    except ArchitectureError as error:
        raise ArchitectureError(f"{error} To take what fits, train with --drop-mismatched True.") from error
    if weights.kind == "run" and not (report.dropped or parts):
        return f"Weights: {path} ({weights})."
    return f"Weights: {path} ({weights})\n{report}"


def _refuse_other_app(app: App, weights: Weights) -> None:
    if weights.model is None or (owner := app_of(weights.model.detector)) == app.name:
        return
    if weights.kind == "run":
        raise CheckpointError(f"Checkpoint {weights.path} is of {owner}, not of {app.name}. Use apps/{owner}.")
    raise CheckpointError(f"{weights.path} is a detector for apps/{owner} ({weights}), not for apps/{app.name}.")


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
