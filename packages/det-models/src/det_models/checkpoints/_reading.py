"""A checkpoint of another system, read: its tensors, the network they belong to, and its conventions."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from det_backbones import BackboneSpec
from det_heads import OneStageConfig, YolactConfig
from det_models.checkpoints._architecture import describe_backbone, describe_detector, pixels_of
from det_models.checkpoints._exchange import Translation, translate
from det_models.checkpoints._metadata import read_metadata
from det_models.detector_config import DetectorConfig


@dataclass(frozen=True, kw_only=True)
class Checkpoint(Translation):
    """A detector of another system.

    Attributes:
        backbone: Its body and pyramid.
        detector: Its heads, under every convention of its system.
        classes: Names of its classes in their order, where the file says so.
        category_ids: Their ids in the data set, where the file says so.
    """

    backbone: BackboneSpec
    detector: DetectorConfig | OneStageConfig | YolactConfig
    classes: tuple[str, ...] | None = None
    category_ids: tuple[int, ...] | None = None

    @property
    def num_classes(self) -> int:
        """Classes without background."""
        return self.detector.num_classes

    def __str__(self) -> str:
        if isinstance(self.detector, YolactConfig):
            kind = "YOLACT" if self.detector.priors.square else "YOLACT++"
        else:
            kind = self.detector.title
        return f"{self.system}, {kind}, {self.backbone}, {self.num_classes} classes"


def read(
    state: Mapping[str, Tensor | np.ndarray], metadata: Mapping[str, Any] | None = None, system: str | None = None
) -> Checkpoint:
    """What a checkpoint holds: tensors, architecture and conventions.

    The network follows from the shapes, the conventions from the system and, where it says something of them, the file:
    mmdetection's configuration text, the pixel statistics in detectron2's older files. Depth, width, groups, kind of
    normalisation, number of classes, masks, stages and the sizes of the heads may be any.

    Args:
        state: Tensors or arrays under the names of the system.
        metadata: What else the file holds.
        system: Name of the system, found out by :func:`detect_system` when None.

    Raises:
        CheckpointError: No known system, unknown tensors, or a network that we do not have.
    """
    found = translate(state, system)
    said = read_metadata(metadata or {})
    backbone = describe_backbone(found.tensors, found.system, said)
    detector = describe_detector(found.tensors, found.system, backbone, said)
    buffers = {name: torch.as_tensor(state[name]) for name in found.ignored if name in state}
    pixels = pixels_of(buffers, detector.pixels)
    if pixels is not None:
        detector = replace(detector, pixels=pixels)
    known = said.classes is not None and len(said.classes) == detector.num_classes
    return Checkpoint(
        system=found.system,
        tensors=found.tensors,
        names=found.names,
        ignored=found.ignored,
        backbone=backbone,
        detector=detector,
        labels=found.labels,
        classes=said.classes if known else None,
        category_ids=said.category_ids if known else found.labels,
    )
