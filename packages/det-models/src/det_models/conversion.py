"""A trained detector, ours or another system's, as a checkpoint of any of them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from det_backbones import read_arrays
from det_heads import OneStageConfig, YolactConfig
from det_models.builders import Detector, build
from det_models.checkpoints import (
    TARGETS,
    CheckpointError,
    as_run_by,
    detect_system,
    differences,
    leftover,
    library,
    load_reference,
    to_checkpoint,
    torchvision_labels,
    with_leftover,
    write_checkpoint,
)
from det_models.config import ModelConfig, OneStageBackboneConfig
from det_models.description import describe
from det_models.detector_config import DetectorConfig
from det_models.foreign_settings import foreign_settings
from det_models.weights import RUN_FORMAT, Weights, open_weights

__all__ = ["Conversion", "convert"]


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A detector in the container, names and layout of a system.

    Attributes:
        source: What it was read from.
        network: The network, in evaluation mode.
        system: `ours`, or one of :data:`det_models.checkpoints.TARGETS`.
        model: The network as that system runs it, told everything that it can be told.
        content: What the file holds.
    """

    source: Weights
    network: Detector
    system: str
    model: ModelConfig
    content: Mapping[str, Any]

    def write(self, path: Path) -> None:
        """Write the file whole or not at all, and never over another; see :func:`checkpoints.write_checkpoint`.

        Raises:
            CheckpointError: There is such a file, or the disk does not take it.
        """
        write_checkpoint(path, self.content)

    def settings(self) -> list[str]:
        """What to set in that system, beside its defaults, so that it computes the same."""
        if self.system == "ours":
            return []
        told = self.model
        if self.system == "torchvision":  # whose classes are the categories' ids
            classes = max(torchvision_labels(list(self.source.categories)))
            told = replace(told, detector=replace(told.detector, num_classes=classes))
        return foreign_settings(told, self.system)

    def rules(self) -> list[str]:
        """Rules in which that system differs, whatever one sets."""
        mine, theirs = self.source.network().detector, self.model.detector
        if isinstance(mine, YolactConfig) or isinstance(theirs, YolactConfig):
            return []
        return [f"{name}: {there}, here {here}" for name, (here, there) in differences(mine, theirs).items()]

    def read_back(self, path: Path) -> Detector:
        """The network in the file that was written, through the loader, under the conventions of its system."""
        if self.system == "ours":
            return open_weights(path).build()
        network = build(self.model)
        load_reference(network, read_arrays(path))
        return network.eval()


def convert(source: Weights, system: str) -> Conversion:
    """A detector as a checkpoint of a system.

    Args:
        source: From :func:`det_models.open_weights`.
        system: `ours`, or one of :data:`det_models.checkpoints.TARGETS`.

    Raises:
        CheckpointError: It cannot be expressed there; the message says why.
    """
    model, network = source.network(), source.build()
    state = network.state_dict()
    origin, rest = _origin(source, state)
    if system == "ours":
        content: dict[str, Any] = {"format": RUN_FORMAT, "model": state, "config": described(source, model)}
        if rest:
            content["foreign"] = {"system": origin, "tensors": rest}
        return Conversion(source=source, network=network, system=system, model=model, content=content)
    if system not in TARGETS:
        raise CheckpointError(f"system must be ours, {' or '.join(TARGETS)}, got {system!r}")
    if model.backbone.name.startswith("timm/"):
        raise CheckpointError(f"a network of timm can be written as ours alone: {system} has no {model.backbone.name}")
    if any(model.backbone.deformable_blocks):
        raise CheckpointError(f"deformable convolutions can be written as ours alone, not for {system}")
    if isinstance(model.detector, YolactConfig):
        raise CheckpointError(f"YOLACT can be written as ours alone: {system} has no such detector")
    if isinstance(model.backbone, OneStageBackboneConfig) and model.backbone.p7_activation == (system == "mmdetection"):
        raise CheckpointError(f"this detector cannot be written for {system}, whose P7 is made in another way")
    content = _content(source, state, system)
    if origin == system:
        content = with_leftover(content, rest)
    return Conversion(source=source, network=network, system=system, model=_as_run_by(model, system), content=content)


def _content(source: Weights, state: Mapping[str, Tensor], system: str) -> dict[str, Any]:
    """What is written for a system: with our own description, where its container has room for one."""
    model = source.network()
    assert isinstance(model.detector, DetectorConfig | OneStageConfig)
    content = to_checkpoint(
        state,
        model.detector,
        system,
        categories={identifier: name or "N/A" for identifier, name in source.categories.items()},
        norm_eps=model.backbone.norm_eps,
    )
    if system == "torchvision":
        return content
    return content | {"det": described(source, replace(model, backbone=_as_run_by(model, system).backbone))}


def described(source: Weights, model: ModelConfig) -> dict[str, Any]:
    """Our description of a model, with the recipe that the weights were trained by, if they were trained here."""
    kept = {key: value for key, value in source.description.items() if key in ("app", "recipe", "limbs")}
    return kept | describe(model, source.categories)


def _origin(source: Weights, state: Mapping[str, Tensor]) -> tuple[str | None, Mapping[str, Tensor]]:
    """The system that a detector comes from, and what its file there says beyond ours, by name."""
    if source.kind == "run":
        foreign = source.file.metadata.get("foreign") or {"system": None, "tensors": {}}
        return foreign["system"], foreign["tensors"]
    spelling = detect_system(source.file.arrays)
    system = library(spelling)
    if system not in TARGETS or isinstance(source.network().detector, YolactConfig):
        return system, {}
    return system, leftover(_content(source, state, system), source.file.arrays, spelling)


def _as_run_by(model: ModelConfig, system: str) -> ModelConfig:
    assert isinstance(model.detector, DetectorConfig | OneStageConfig)
    backbone = model.backbone
    if system == "detectron2":  # whose epsilon is fixed
        backbone = replace(backbone, norm_eps=1e-5)
    return replace(model, backbone=backbone, detector=as_run_by(model.detector, system))
