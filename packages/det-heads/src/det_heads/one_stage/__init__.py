"""One-stage detectors of boxes: RetinaNet (Lin et al., 2017) and FCOS (Tian et al., 2019)."""

from typing import TYPE_CHECKING

from det_backbones.lazy import lazily

if TYPE_CHECKING:
    from det_heads.one_stage.assignment import IoUAssignment, LocationAssignment
    from det_heads.one_stage.config import LocationConfig, OneStageConfig
    from det_heads.one_stage.detections import select_dense
    from det_heads.one_stage.head import DenseHead, DenseOutputs
    from det_heads.one_stage.model import OneStageDetector
else:
    __getattr__, __dir__ = lazily(__name__, __file__)

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
