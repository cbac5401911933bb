"""What the systems that we write for can be told about a RetinaNet or FCOS."""

from collections.abc import Callable, Mapping
from typing import Any

from det_heads import OneStageConfig
from det_models.checkpoints._settings import (
    Target,
    detectron2_pixels,
    mmdetection_pixels,
    stds,
    torchvision_pixels,
    yaml,
)
from det_models.retinanet import (
    detectron2_fcos_config,
    detectron2_retinanet_config,
    mmdetection_retinanet_config,
    torchvision_fcos_config,
    torchvision_retinanet_config,
    torchvision_retinanet_v2_config,
)

__all__ = ["ONE_STAGE_TARGETS", "one_stage_obstacle"]

Names = Mapping[str, str | Callable[[Any], str]]

_DETECTRON2: Names = {
    "num_classes": "MODEL.RETINANET.NUM_CLASSES: {0}  # FCOS: model.num_classes = {0}",
    "pixels": detectron2_pixels,
    "anchors.sizes": "MODEL.ANCHOR_GENERATOR.SIZES: {}",
    "anchors.ratios": lambda ratios: f"MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS: [{yaml(ratios)}]",
    "convs": "MODEL.RETINANET.NUM_CONVS: {0}  # FCOS: model.head.conv_dims, so many",
    "norm": lambda norm: f'MODEL.RETINANET.NORM: "{(norm or "").upper()}"',
    "norm_bias": "",
    "coding.weights": "MODEL.RETINANET.BBOX_REG_WEIGHTS: {}",
    "candidates": "MODEL.RETINANET.TOPK_CANDIDATES_TEST: {0}  # FCOS: model.test_topk_candidates = {0}",
    "score_threshold": "MODEL.RETINANET.SCORE_THRESH_TEST: {0}  # FCOS: model.test_score_thresh = {0}",
    "nms_threshold": "MODEL.RETINANET.NMS_THRESH_TEST: {0}  # FCOS: model.test_nms_thresh = {0}",
    "max_detections": "TEST.DETECTIONS_PER_IMAGE: {0}  # FCOS: model.max_detections_per_image = {0}",
}

_MMDETECTION: Names = {
    "num_classes": "model.bbox_head.num_classes = {}",
    "pixels": mmdetection_pixels,
    "convs": "model.bbox_head.stacked_convs = {}",
    "norm": "model.bbox_head.norm_cfg = dict(type='GN', num_groups=32)  # {}",
    "norm_bias": "",
    "coding.weights": lambda weights: f"model.bbox_head.bbox_coder.target_stds = {stds(weights)}",
    "candidates": "model.test_cfg.nms_pre = {}",
    "score_threshold": "model.test_cfg.score_thr = {}",
    "nms_threshold": "model.test_cfg.nms.iou_threshold = {}",
    "max_detections": "model.test_cfg.max_per_img = {}",
}

_TORCHVISION: Names = {
    "num_classes": lambda classes: f"num_classes={classes + 1}",
    "pixels": torchvision_pixels,
    "anchors.sizes": lambda sizes: f"anchor_generator=AnchorGenerator(sizes={sizes}, aspect_ratios=...)",
    "anchors.ratios": lambda ratios: f"anchor_generator=AnchorGenerator(sizes=..., aspect_ratios=({ratios},) * 5)",
    "candidates": "topk_candidates={}",
    "score_threshold": "score_thresh={}",
    "nms_threshold": "nms_thresh={}",
    "max_detections": "detections_per_img={}",
}


def _detectron2(config: OneStageConfig) -> OneStageConfig:
    return (detectron2_retinanet_config if config.locations is None else detectron2_fcos_config)()


def _torchvision(config: OneStageConfig) -> OneStageConfig:
    if config.locations is not None:
        return torchvision_fcos_config()
    return (torchvision_retinanet_v2_config if config.norm else torchvision_retinanet_config)()


ONE_STAGE_TARGETS = {
    "detectron2": Target(_detectron2, _DETECTRON2),
    "mmdetection": Target(lambda _config: mmdetection_retinanet_config(), _MMDETECTION),
    "torchvision": Target(_torchvision, _TORCHVISION),
}
"""By name."""


def one_stage_obstacle(config: OneStageConfig, system: str) -> str | None:
    """Why a detector cannot be expressed in a system at all, or None."""
    fcos, normed = config.locations is not None, config.norm is not None
    if system == "mmdetection" and fcos:
        return "mmdetection's FCOS has a scale for each level, and other scores"
    if normed and system == "detectron2" and not config.norm_bias:
        return "detectron2's towers have biases beside their norms"
    if normed and system == "mmdetection" and config.norm_bias:
        return "mmdetection's towers have no biases beside their norms"
    if system == "mmdetection" and config.anchors != mmdetection_retinanet_config().anchors:
        return "mmdetection's RetinaNet counts anchors by ratio and then by size, which is known of its own nine alone"
    if system == "torchvision":
        if config.convs != 4:
            return f"torchvision's towers have four convolutions, and this one has {config.convs}"
        if fcos and not (normed and config.norm_bias):
            return "torchvision's FCOS has normalised towers with biases"
        if not fcos and normed and config.norm_bias:
            return "torchvision's RetinaNet has no biases beside its norms"
    return None
