"""Files with weights, read once, and told apart by what is in them."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from det_backbones import WeightsFile, find_weights, read_weights
from det_heads import YolactConfig
from det_models.adopting import model_of
from det_models.builders import Detector, build
from det_models.categories import Categories, categories_of
from det_models.changes import with_limits, with_size
from det_models.checkpoints import (
    CheckpointError,
    Report,
    Translation,
    detect_system,
    load,
    read,
)
from det_models.config import ModelConfig
from det_models.description import read_description
from det_models.inference import plain_tensors
from det_models.predictor import Predictor
from det_models.published import find_published
from det_models.size import check_size

__all__ = ["Weights", "open_weights"]

RUN_FORMAT = "det-engine checkpoint"
"""What the checkpoints of `det_engine` call their format."""
RUN_VERSION = 1
"""The latest version of it that is known here."""
_OUR_BODY = "backbone.body."
"""How names of a state dict of ours begin, and where no other system's rules fit, of nobody else's."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What a file with weights holds.

    Attributes:
        path: The file.
        kind: A `run` of ours, or what was converted to ours; a `detector` of another system; one that was `exported`;
            or the `backbone` of some network, whose names :func:`det_backbones.load_imagenet_weights` knows or not.
        file: All that was read.
        tensors: The detector's under our names (averaged where the run averaged), or None for a backbone.
        model: The network they belong to and the images that it gets; None where nothing says so.
        categories: Of its labels, in their order; empty where there is no model.
        assumed: Whether the categories are a guess, since the file does not name them.
    """

    path: Path
    kind: Literal["run", "detector", "exported", "backbone"]
    file: WeightsFile
    tensors: Translation | None = None
    model: ModelConfig | None = None
    categories: Categories
    assumed: bool = False

    def __str__(self) -> str:
        names = {"run": "a run of ours", "backbone": "the weights of a backbone"}
        return names.get(self.kind) or str(self.tensors)

    @property
    def description(self) -> Mapping[str, Any]:
        """What we wrote of the network into the file, if we wrote it: see :func:`det_models.describe`."""
        return self.file.metadata.get("config" if self.kind == "run" else "det") or {}

    @property
    def limbs(self) -> tuple[tuple[int, int], ...]:
        """What pictures join, see :attr:`Detections.limbs`, where the file says so."""
        return tuple((a, b) for a, b in self.description.get("limbs", ()))

    def network(self) -> ModelConfig:
        """The model.

        Raises:
            CheckpointError: The file holds no detector, or does not say which.
        """
        self._tensors()
        if self.model is None:
            raise CheckpointError(
                f"{self.path} does not say which network its weights are of. Build that network, and fill it: "
                "det_models.open_weights(path).fill(network). What det_engine.train writes says so where it is given "
                "config=det_models.describe(model, categories)."
            )
        return self.model

    def _tensors(self) -> Translation:
        if self.tensors is None:
            raise CheckpointError(f"{self.path} holds the weights of no detector that is known here.")
        return self.tensors

    def fill(
        self,
        network: Detector,
        *,
        drop_class_head: bool = False,
        drop_mismatched: bool = False,
        parts: Sequence[str] = (),
    ) -> Report:
        """Give a network these weights.

        Args:
            network: Of the same architecture, or of one with the same parts.
            drop_class_head: Leave out the layers that tell classes apart, where the file has another number of them.
            drop_mismatched: Leave out whatever does not fit.
            parts: Names of parts to take, such as `backbone`; empty: all.

        Returns:
            What became of the tensors.

        Raises:
            ClassCountError: The numbers of classes differ, and `drop_class_head` is not set.
            ArchitectureError: The architecture is another.
            CheckpointError: The file holds no detector, or there is no such part. The network is unchanged each time.
        """
        try:
            return load(
                network,
                self._tensors(),
                drop_class_head=drop_class_head,
                drop_mismatched=drop_mismatched,
                parts=parts,
            )
        except CheckpointError as error:
            raise type(error)(f"{self.path}: {error}.") from error

    def report(self) -> Report:
        """What becomes of the tensors in the network that they belong to.

        Raises:
            CheckpointError: The file holds no detector.
        """
        tensors = self._tensors()
        missing = tuple(name for name in tensors.tensors if name not in tensors.names)
        return Report(system=tensors.system, matched=tensors.names, ignored=tensors.ignored, missing=missing)

    def build(self) -> Detector:
        """The network with its weights, in evaluation mode.

        Raises:
            CheckpointError: The file holds no detector, or one that cannot be built here.
        """
        try:
            check_size(self.network())
            with plain_tensors():
                network = build(self.network()).float()
        except CheckpointError:
            raise
        except ValueError as error:
            raise CheckpointError(f"{self.path} is of a network that cannot be built: {error}.") from error
        self.fill(network)
        return network.eval()

    def on_images_of(self, model: ModelConfig) -> "Weights":
        """The same weights on images as another model gets them, with its prior boxes, which are in their pixels."""
        own = self.network()
        detector = own.detector
        if isinstance(detector, YolactConfig) and isinstance(model.detector, YolactConfig):
            detector = replace(detector, priors=model.detector.priors)
        return replace(self, model=replace(own, detector=detector, resize=model.resize, buckets=model.buckets))

    def predictor(
        self,
        *,
        device: str | torch.device = "auto",
        precision: str = "fp32",
        batch_size: int = 1,
        max_detections: int | None = None,
        nms_iou: float | None = None,
        classes: Iterable[str | int] | None = None,
        size: int | tuple[int, int] | None = None,
    ) -> Predictor:
        """The detector, ready to be shown images; see :func:`det_models.load` for the arguments and errors."""
        model = self.network()
        if size is not None:
            model = with_size(model, size, scale_priors=self.kind == "detector" and not self.description)
        model = with_limits(model, max_detections=max_detections, nms_iou=nms_iou, raise_only=classes is not None)
        weights = replace(self, model=model)
        return Predictor(
            weights.build(),
            model,
            self.categories,
            device=device,
            precision=precision,
            batch_size=batch_size,
            max_detections=max_detections,
            classes=classes,
            limbs=self.limbs,
            source=str(self.path),
        )


def open_weights(path: str | os.PathLike[str]) -> Weights:
    """Read a file with weights, once, and tell what it is.

    Args:
        path: A checkpoint of a run, or the folder of a run, of which its best checkpoint is taken (its last where it
            was never evaluated); a detector of another system (:data:`det_models.checkpoints.SYSTEMS`); a file or card
            that :func:`det_models.export` wrote; or weights of a backbone. What it is follows from its content, and
            nothing in it is run. Or the name of a published detector (:func:`det_models.find_published`), whose file is
            downloaded where it is not here yet.

    Raises:
        WeightsError: It is missing, damaged, or not only weights, or it cannot be downloaded.
        CheckpointError: It is a detector that cannot be built here, has numbers that are not finite, or was written
            by another version.
    """
    from det_models.exported.weights import open_exported  # which is built on what is here

    published = find_published(path)
    path = _file(Path(path)) if published is None else find_weights(published)
    exported = open_exported(path)
    if exported is not None:
        return exported
    file = read_weights(path)
    try:
        found = _run(path, file) if file.metadata.get("format") == RUN_FORMAT else _foreign(path, file)
        if found.tensors is not None:
            _check_finite(found.tensors.tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}.") from error
    if published is not None and published.size is not None and found.model is not None:
        found = replace(found, model=with_size(found.model, published.size, scale_priors=True))
    return found


def _file(path: Path) -> Path:
    card = path.with_name(f"{path.name}.json")
    if path.suffix in (".onnx", ".xml", ".pt2") and not path.exists() and card.is_file():
        return card  # of a file for each shape, which have longer names
    if not path.is_dir():
        return path
    for name in ("best.pt", "last.pt"):
        for folder in (path / "checkpoints", path):
            if (folder / name).is_file():
                return folder / name
    raise CheckpointError(f"The folder {path} is not that of a run: it has no checkpoints/best.pt and no last.pt.")


def _run(path: Path, file: WeightsFile) -> Weights:
    version = file.metadata.get("version", RUN_VERSION)
    if not isinstance(version, int) or version > RUN_VERSION:
        writer = file.metadata.get("written_by", "a later det-engine")
        raise CheckpointError(f"it has version {version} of the format, written by {writer}; update det-models")
    average, config = (_by_name(file, name) for name in ("average", "config"))
    if not all(isinstance(tensor, Tensor) for tensor in average.values()):
        raise CheckpointError("its averaged weights are no tensors")
    tensors = {**file.arrays, **average}
    own = Translation(system="ours", tensors=tensors, names={name: name for name in tensors})
    if not {"model", "recipe"} & set(config):
        return Weights(path=path, kind="run", file=file, tensors=own, categories={})
    model, categories = read_description(config)
    return Weights(path=path, kind="run", file=file, tensors=own, model=model, categories=categories)


def _by_name(file: WeightsFile, entry: str) -> Mapping[str, Any]:
    """An entry that is None or values by name."""
    value = file.metadata.get(entry)
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise CheckpointError(f"its entry {entry!r} is not values by name")
    return value


def _check_finite(tensors: Mapping[str, Tensor]) -> None:
    bad = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if bad:
        raise CheckpointError(
            f"{len(bad)} of its {len(tensors)} tensors {'holds' if len(bad) == 1 else 'hold'} numbers that are "
            f"not finite, such as {bad[0]}; whatever made it had failed before, so use an earlier one"
        )


def _foreign(path: Path, file: WeightsFile) -> Weights:
    try:
        system = detect_system(file.arrays)
    except CheckpointError:
        if any(name.startswith(_OUR_BODY) for name in file.arrays):
            return _run(path, file)
        return Weights(path=path, kind="backbone", file=file, categories={})
    found = read(file.arrays, file.metadata, system)
    described = file.metadata.get("det")
    if described:
        model, categories = read_description(described)
    else:
        model, categories = model_of(found), categories_of(found)
    return Weights(
        path=path,
        kind="detector",
        file=file,
        tensors=found,
        model=model,
        categories=categories,
        assumed=not described and found.classes is None,
    )
