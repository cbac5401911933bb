"""Whole detectors: built by name, loaded from any system's checkpoint, predicting in three lines."""

from typing import TYPE_CHECKING

import det_models.keypoints  # noqa: F401 - a kind of detector that checkpoints may be of
from det_backbones.lazy import lazily
from det_models.__about__ import __version__

if TYPE_CHECKING:
    from det_models.builders import Detector, backbone, build, one_stage, two_stage, yolact
    from det_models.config import BackboneConfig, ModelConfig, OneStageBackboneConfig, YolactBackboneConfig
    from det_models.conventions import (
        detectron2_cascade_config,
        detectron2_config,
        maskrcnn_benchmark_config,
        mmdetection_cascade_config,
        mmdetection_config,
        mmdetection_v1_cascade_config,
        mmdetection_v1_config,
        torchvision_config,
        torchvision_v2_config,
    )
    from det_models.description import describe
    from det_models.detections import Detections
    from det_models.detector_config import DetectorConfig
    from det_models.errors import CheckpointError, OptionError
    from det_models.exporting import export
    from det_models.keypoints import KeypointDetectorConfig, torchvision_keypoint_config
    from det_models.loading import load
    from det_models.named import (
        cascade_mask_rcnn_r50_fpn,
        cascade_rcnn_r50_fpn,
        faster_rcnn_r50_fpn,
        mask_rcnn_r50_fpn,
        yolact_darknet53,
        yolact_plus_resnet50,
        yolact_resnet50,
        yolact_resnet101,
    )
    from det_models.predictor import Predictor
    from det_models.published import PublishedDetector, find_published, published_detectors
    from det_models.retinanet import (
        detectron2_fcos_config,
        detectron2_retinanet_config,
        fcos_r50_fpn,
        mmdetection_retinanet_config,
        retinanet_r50_fpn,
        torchvision_fcos_config,
        torchvision_retinanet_config,
        torchvision_retinanet_v2_config,
    )
    from det_models.tiling import Tiling
    from det_models.views import Views
    from det_models.weights import Weights, open_weights
else:
    __getattr__, __dir__ = lazily(__name__, __file__)

__all__ = [
    "BackboneConfig",
    "CheckpointError",
    "Detections",
    "Detector",
    "DetectorConfig",
    "KeypointDetectorConfig",
    "ModelConfig",
    "OneStageBackboneConfig",
    "OptionError",
    "Predictor",
    "PublishedDetector",
    "Tiling",
    "Views",
    "Weights",
    "YolactBackboneConfig",
    "__version__",
    "backbone",
    "build",
    "cascade_mask_rcnn_r50_fpn",
    "cascade_rcnn_r50_fpn",
    "describe",
    "detectron2_cascade_config",
    "detectron2_config",
    "detectron2_fcos_config",
    "detectron2_retinanet_config",
    "export",
    "faster_rcnn_r50_fpn",
    "fcos_r50_fpn",
    "find_published",
    "load",
    "mask_rcnn_r50_fpn",
    "maskrcnn_benchmark_config",
    "mmdetection_cascade_config",
    "mmdetection_config",
    "mmdetection_retinanet_config",
    "mmdetection_v1_cascade_config",
    "mmdetection_v1_config",
    "one_stage",
    "open_weights",
    "published_detectors",
    "retinanet_r50_fpn",
    "torchvision_config",
    "torchvision_fcos_config",
    "torchvision_keypoint_config",
    "torchvision_retinanet_config",
    "torchvision_retinanet_v2_config",
    "torchvision_v2_config",
    "two_stage",
    "yolact",
    "yolact_darknet53",
    "yolact_plus_resnet50",
    "yolact_resnet50",
    "yolact_resnet101",
]
