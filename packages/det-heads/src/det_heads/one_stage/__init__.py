"""One-stage detectors of boxes: RetinaNet (Lin et al., 2017) and FCOS (Tian et al., 2019)."""

from det_heads.one_stage.assignment import IoUAssignment, LocationAssignment
from det_heads.one_stage.config import LocationConfig, OneStageConfig
from det_heads.one_stage.detections import select_dense
from det_heads.one_stage.head import DenseHead, DenseOutputs
from det_heads.one_stage.model import OneStageDetector

__all__ = [
    "DenseHead",
    "DenseOutputs",
    "IoUAssignment",
    "LocationAssignment",
    "LocationConfig",
    "OneStageConfig",
    "OneStageDetector",
    "select_dense",
]
