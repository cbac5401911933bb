"""Whole detectors: built by name, loaded from any system's checkpoint, predicting in three lines."""

from det_models.__about__ import __version__
from det_models.builders import Detector, backbone, build, two_stage, yolact
from det_models.checkpoints import CheckpointError
from det_models.config import BackboneConfig, ModelConfig, YolactBackboneConfig

__all__ = [
    "BackboneConfig",
    "CheckpointError",
    "Detector",
    "ModelConfig",
    "YolactBackboneConfig",
    "__version__",
    "backbone",
    "build",
    "two_stage",
    "yolact",
]
