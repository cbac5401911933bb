"""Options of the commands that run a trained detector, and the detector that they ask for."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from apps.common.app import App
from apps.common.detecting_options import DetectorOptions
from apps.common.weights import open_detector
from det_coco import CocoIndex
from det_engine import EngineError, Precision
from det_models import Predictor, Weights
from det_models.categories import reported


def open_options(app: App, options: DetectorOptions) -> Weights:
    """The file that `--weights` names.

    Raises:
        As :func:`apps.common.weights.open_detector`.
    """
    return open_detector(app, options.weights, options.recipe)


def predictor(weights: Weights, options: DetectorOptions, device: torch.device, batch: int) -> Predictor:
    """The detector in a file, as the options want it.

    Args:
        weights: the file.
        options: of the command.
        device: where it runs.
        batch: images at a time, where `--batch` does not say so.

    Raises:
        OptionError, EngineError: the detector, or the device, cannot do what an option asks for.
    """
    size: Any = options.size[0] if len(options.size) == 1 else options.size or None
    # A runtime other than PyTorch has what it was built for: another device must be named.
    anywhere = weights.kind == "exported" and options.device == "auto"
    return weights.predictor(
        device="auto" if anywhere else device,
        precision=autocast_name(options.precision, device),
        batch_size=options.batch or batch,
        max_detections=options.max_detections,
        nms_iou=options.nms_iou,
        classes=options.classes or None,
        size=size,
    )


def autocast_name(precision: str, device: torch.device, loss_scale: float | None = None) -> str:
    """What a predictor calls a number format of det_engine, whose switches are set for the process.

    Raises:
        EngineError: the device lacks it.
    """
    name = Precision(precision, device, loss_scale).name
    return {"tf32": "fp32", "O2": "fp16"}.get(name, name)


def loading_of(app: App, options: DetectorOptions, weights: Weights) -> tuple[int, int]:
    """Images of a step and worker processes of the recipe that is named, or of the run; else 2 and 2."""
    if options.recipe is not None:
        named = app.recipes[options.recipe]().data
        return named.batch, named.workers
    data = _data_of(weights)
    return data.get("batch", 2), data.get("workers", 2)


def turns_upright(weights: Weights, options: DetectorOptions) -> bool:
    """Whether pictures are turned as their EXIF orientation says: as the option or else the run says."""
    return _data_of(weights).get("exif", True) if options.exif is None else options.exif


def _data_of(weights: Weights) -> dict[str, Any]:
    return (weights.description.get("recipe") or {}).get("data") or {}


def on_categories(weights: Weights, index: CocoIndex, classes: Sequence[str] = ()) -> Weights:
    """The weights with the categories of the data that they are evaluated on, and a line where those are fewer.

    A file of another system may not say what its classes are, or only their names: then classes are the categories of
    the data in their order, if there are as many. Otherwise a class is the category with its id and name, else the one
    with its name; classes that the data lacks are not reported.

    Args:
        weights: the detector.
        index: the data.
        classes: those chosen by name or id; where some are, the data may have categories that the detector lacks.

    Raises:
        EngineError: the data has categories that the detector lacks; names the first.
    """
    known, there = reported(weights.categories), dict(index.categories)
    if known == there:
        return weights
    same_names = tuple(known.values()) == tuple(there.values())
    if len(weights.categories) == len(there) and (weights.assumed or same_names):
        return replace(weights, categories={**there})
    found = _same(weights.categories, there)
    lacking = [f"{i} {name!r}" for i, name in there.items() if i not in found.values()]
    if not found or (lacking and not classes):
        raise EngineError(
            f"{weights.path} does not know {len(lacking)} of the {len(there)} categories of {index.annotation_file} "
            f"({', '.join(lacking[:4])}{', ...' if len(lacking) > 4 else ''}). Evaluate on data with its categories"
            f"{', or on some classes that both know: --classes' if found else ''}."
        )
    print(
        f"Classes: {index.annotation_file} has {len(found)} of the {len(known)} that {weights.path} knows; "
        "the others are not looked for."
    )
    # Ids below those of the data stand for classes that it lacks.
    lowest = min(0, *there)
    categories = {
        found.get(label, lowest - 1 - label): there[found[label]] if label in found else None
        for label in range(len(weights.categories))
    }
    return replace(weights, categories=categories)


def _same(known: Mapping[int, str | None], there: Mapping[int, str]) -> dict[int, int]:
    """Label of a model -> id in the data of the same category, by id and name, else by a name that is there once."""
    found = {label: i for label, (i, name) in enumerate(known.items()) if there.get(i, "") == name}
    left = {i: name for i, name in there.items() if i not in found.values()}
    once = {name: i for i, name in left.items() if Counter(left.values())[name] == 1}
    mine = Counter(name for label, name in enumerate(known.values()) if label not in found)
    for label, name in enumerate(known.values()):
        if label not in found and name in once and mine[name] == 1:
            found[label] = once[name]
    return found


def say_what_was_read(weights: Weights) -> None:
    """Print what a file of another system was taken for."""
    if weights.kind == "detector" and not weights.description:
        print(f"Weights: {weights.path} ({weights})\n{weights.report()}")
