"""Options of the commands that run a trained detector, and the detector that they ask for."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch

from apps.common.app import App
from apps.common.weights import open_detector
from det_coco import CocoIndex
from det_engine import EngineError, Precision
from det_models import Predictor, Tiling, Views, Weights
from det_models.categories import reported


@dataclass(frozen=True, kw_only=True)
class DetectorOptions:
    """What `eval` and `predict` may be told of the detector."""

    weights: Path
    """Checkpoint or folder of a run (its checkpoints/best.pt), a detector of another system, or the name of a
    published one, such as detectron2/mask_rcnn_R_50_FPN_3x; `weights` lists them."""
    recipe: str | None = None
    """For a file of another system: recipe whose images it gets; by default those of its system."""
    size: tuple[int, ...] = ()
    """Pixels of an image's shorter side, and perhaps the limit of its longer side; YOLACT: of a square's side. By
    default as in the run's own evaluation, or as the other system does it."""
    classes: tuple[str, ...] = ()
    """Names or ids of the categories to detect; by default all."""
    max_detections: int | None = None
    """The most detections of an image; by default as many as in the run, or in the other system."""
    nms_iou: float | None = None
    """Non-maximum suppression leaves out a box with a larger IoU with a better one; by default as in the run."""
    batch: int | None = None
    """Images at a time."""
    exif: bool | None = None
    """Turn pictures upright as their EXIF orientation says; by default as in the run, which does unless told not to."""
    device: str = "auto"
    """auto, cpu, cuda or npu."""
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    """Number format of the forward pass."""
    tile: tuple[int, ...] = ()
    """Look at big pictures in tiles of this side, or of this height and width, in pixels; by default as a whole."""
    overlap: float | None = None
    """Share of a tile that the next one shows too; by default 0.2."""
    tile_whole: bool | None = None
    """Look at the whole picture beside its tiles, for objects larger than those; by default True."""
    tile_merge: Literal["nms", "join"] | None = None
    """What becomes of detections of one object in several tiles: by default nms, which keeps the best; join puts their
    boxes and masks together."""
    tile_match: Literal["ios", "iou"] | None = None
    """Overlap by which they are of one object: by default ios, intersection over the smaller area, or iou."""

    tta: bool = False
    """Test-time augmentation: look at each picture in several sizes, and mirrored."""
    tta_sizes: tuple[int, ...] = ()
    """Lengths of the shorter side for that, in pixels; by default nine, from half of the usual to one and a half."""
    tta_merge: Literal["nms", "weighted"] = "nms"
    """How boxes of an object in several views become one: nms keeps the best, weighted takes their mean by scores
    (weighted boxes fusion), of two-stage detectors."""

    @property
    def looks(self) -> dict[str, Any]:
        """How pictures are looked at, if not once each: arguments of :meth:`Predictor.predict`.

        Raises:
            OptionError, ValueError: the options make no sense.
        """
        if self.tta_sizes and not self.tta:
            raise ValueError("tta_sizes are of test-time augmentation, which tta asks for")
        if min(self.tta_sizes, default=1) < 1:
            raise ValueError(f"tta_sizes must be at least 1, got {min(self.tta_sizes)}")
        if self.tta_merge != "nms" and not self.tta:
            raise ValueError("tta_merge is of test-time augmentation, which tta asks for")
        views, tiling = Views(sizes=self.tta_sizes, merge=self.tta_merge) if self.tta else None, self.tiling
        if views and tiling:
            raise ValueError("tta cannot be had together with tile")
        return {"tta": views} if views else {"tile": tiling} if tiling else {}

    @property
    def tiling(self) -> Tiling | None:
        """The tiles, where there are some.

        Raises:
            OptionError: their options make no sense.
        """
        named = {"overlap": self.overlap, "whole": self.tile_whole, "merge": self.tile_merge, "match": self.tile_match}
        given: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
        if self.tile:
            return Tiling(size=self.tile[0] if len(self.tile) == 1 else cast("tuple[int, int]", self.tile), **given)
        if given:
            name = next(iter(given))
            raise ValueError(f"{name if name == 'overlap' else f'tile_{name}'} is of tiles, whose size tile says")
        return None

    def __post_init__(self) -> None:
        self.looks  # noqa: B018 - refuses what makes no sense
        for name in ("batch", "max_detections"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if len(self.size) > 2:
            raise ValueError(f"size takes one length or two, got {len(self.size)}")


def check_score(min_score: float) -> None:
    """Refuse a least score that no detection, or every one, has.

    Raises:
        ValueError: it is not between 0 and 1.
    """
    if not 0 <= min_score <= 1:
        raise ValueError(f"min_score must be between 0 and 1, got {min_score:g}")


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
