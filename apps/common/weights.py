"""Trained models in and out, and whatever `--weights` names into a network."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import cattrs

from apps.common.app import App, app_of
from apps.common.config import R, Recipe, from_dict, to_dict
from det_backbones import (
    WEIGHTS,
    LoadReport,
    ResNet,
    TimmBody,
    WeightsError,
    find_weights,
    load_imagenet_weights,
    read_weights,
)
from det_engine import EngineError, checkpoint
from det_engine.cli import UsageError, unknown
from det_models import Detector
from det_models.adopting import changes
from det_models.categories import Categories, categories_of
from det_models.checkpoints import (
    Checkpoint,
    CheckpointError,
    ClassCountError,
    Report,
    Translation,
    detect_system,
    load,
    read,
)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained model.

    Attributes:
        recipe: what it was built from.
        categories: of its labels, in their order.
        model: the network with its weights.
        assumed: whether the categories are a guess, since the file does not name them.
    """

    recipe: Recipe
    categories: Categories
    model: Detector
    assumed: bool = False

    @property
    def ids(self) -> tuple[int | None, ...]:
        """Category id by label; None: never reported."""
        return tuple(None if name is None else identifier for identifier, name in self.categories.items())


def describe(app: App, recipe: Recipe, categories: Mapping[int, str | None]) -> dict[str, Any]:
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


def load_trained(app: App, path: Path, recipe: str | None = None) -> Trained:
    """The model in a checkpoint of a run, or in a file of another system, which decides the whole network.

    Args:
        app: which networks it builds.
        path: the file; what it is follows from its content.
        recipe: name of the recipe whose images a file of another system gets; by default those of its system.

    Raises:
        EngineError, WeightsError, CheckpointError: the file is missing, damaged, of another app or of another version
            of the recipe, or holds no detector that can be built here.
        UsageError: there is no such recipe, or the checkpoint has its own.
    """
    if recipe is not None and recipe not in app.recipes:
        raise unknown("recipe", recipe, app.recipes)
    if path.is_file() and not checkpoint.is_checkpoint(path):
        return _load_foreign(app, path, None if recipe is None else app.recipes[recipe]())
    if recipe is not None:
        raise UsageError(f"{path} has its own recipe; leave out --recipe.")
    state = checkpoint.load(path)
    own, config = read_config(app, state, path)
    model = app.network(own)
    checkpoint.load_model(model, checkpoint.weights(state), path)
    return Trained(recipe=own, categories=_categories(config), model=model)


def _categories(config: Mapping[str, Any]) -> Categories:
    return {entry["id"]: entry["name"] for entry in config["categories"]}


def _load_foreign(app: App, path: Path, recipe: Recipe | None) -> Trained:
    found = read_detector(path)
    if found is None:
        raise CheckpointError(f"{path} holds the weights of no detector that is known here.")
    _refuse_other_app(app, found, path)
    described = read_weights(path).metadata.get("det") if recipe is None else None
    if described is not None:  # written by `convert` from a run
        own, config = read_config(app, {"config": described}, path)
        model = app.network(own)
        _load(model, found, path)
        return Trained(recipe=own, categories=_categories(config), model=model)
    own = app.kind.of(found, recipe)
    model = app.network(own)
    report = _load(model, found, path)
    print(f"Weights: {path} ({found})\n{report}")
    return Trained(recipe=own, categories=categories_of(found), model=model, assumed=found.classes is None)


def read_detector(path: Path) -> Checkpoint | None:
    """The detector of another system in a file; None where it holds one of ours, or none.

    Raises:
        WeightsError: the file is missing, damaged or not only weights.
        CheckpointError: it is a detector that cannot be built here.
    """
    if checkpoint.is_checkpoint(path):
        return None
    file = read_weights(path)
    try:
        system = detect_system(file.arrays)
    except CheckpointError:
        return None
    try:
        return read(file.arrays, file.metadata, system)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}.") from error


def adopt(app: App[R], recipe: R, weights: str | None) -> tuple[R, list[str]]:
    """The recipe under the conventions of the weights that it is to start from, and what that changed.

    Only a detector of another system has such conventions.

    Raises:
        WeightsError, CheckpointError: as :func:`read_detector`, or it belongs to another app.
    """
    if weights is None or weights == "none" or weights in WEIGHTS:
        return recipe, []
    found = read_detector(find_weights(weights))
    if found is None:
        return recipe, []
    _refuse_other_app(app, found, weights)
    adopted = recipe.under(found)
    return adopted, changes(recipe, adopted)


def initialize(model: Detector, recipe: Recipe, weights: str | None, *, drop_class_head: bool = False) -> str:
    """Load what `--weights` asks for and say what was done.

    Args:
        model: network to fill.
        recipe: names the ImageNet weights it expects.
        weights: None: those of the recipe; ``none``: random; else a checkpoint of ours, a detector of another system
            (:data:`det_models.checkpoints.SYSTEMS`), or ImageNet weights of a ResNet; told apart by content.
        drop_class_head: leave out the layers that tell classes apart, where the file has another number of classes.

    Raises:
        WeightsError, CheckpointError, EngineError: missing, damaged, or of another architecture.
    """
    name = recipe.backbone.weights if weights is None else weights
    if name == "none":
        return "Weights: random."
    path = find_weights(name)
    found: Translation | None
    if checkpoint.is_checkpoint(path):
        tensors = checkpoint.weights(checkpoint.load(path))
        found, what = (
            Translation(system="ours", tensors=tensors, names={name: name for name in tensors}),
            "a run of ours",
        )
    else:
        found = read_detector(path)
        what = str(found)
    if found is None:
        report = load_imagenet_weights(cast(ResNet | TimmBody, model.backbone.body), path)
        _check_conventions(report, recipe, path)
        return f"Weights: backbone from {path} ({report})."
    report = _load(model, found, path, drop_class_head=drop_class_head)
    if found.system == "ours" and not report.dropped:
        return f"Weights: {path} ({what})."
    return f"Weights: {path} ({what})\n{report}"


def _load(model: Detector, found: Translation, path: Path, *, drop_class_head: bool = False) -> Report:
    try:
        return load(model, found, drop_class_head=drop_class_head)
    except ClassCountError as error:
        raise ClassCountError(f"{path}: {error}. To do so, train with --drop-class-head True.") from error
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}.") from error


def _refuse_other_app(app: App, found: Checkpoint, path: Path | str) -> None:
    name = app_of(found.detector)
    if name != app.name:
        raise CheckpointError(f"{path} is a detector for apps/{name} ({found}), not for apps/{app.name}.")


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
