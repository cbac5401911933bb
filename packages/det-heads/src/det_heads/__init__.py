"""Static-shape detectors: Faster, Mask and Cascade R-CNN in two stages, YOLACT in one."""

from det_heads.__about__ import __version__
from det_heads.anchors import Anchors, cell_anchors, inside_image
from det_heads.assignment import Assignment, Samples, Truth, assign, draw, label_all, truth_of
from det_heads.box_head import BoxHead
from det_heads.cascade import CascadeDetector
from det_heads.config import (
    AnchorConfig,
    BoxCodingConfig,
    BoxHeadConfig,
    CascadeConfig,
    MaskHeadConfig,
    PixelConfig,
    PoolConfig,
    RPNConfig,
)
from det_heads.detections import select_detections
from det_heads.losses import box_losses, mask_loss, regression_loss, rpn_losses
from det_heads.mask_head import MaskHead, mask_targets
from det_heads.pixels import Normalize
from det_heads.pooling import pool_boxes
from det_heads.postprocess import ImageDetections, to_image
from det_heads.proposals import Proposals, select_proposals
from det_heads.rpn import RPNHead, flatten_levels
from det_heads.two_stage import TwoStageDetector
from det_heads.yolact import (
    MaskIoUConfig,
    PriorConfig,
    Yolact,
    YolactConfig,
    YolactLossConfig,
    yolact_config,
    yolact_plus_config,
)

__all__ = [
    "AnchorConfig",
    "Anchors",
    "Assignment",
    "BoxCodingConfig",
    "BoxHead",
    "BoxHeadConfig",
    "CascadeConfig",
    "CascadeDetector",
    "ImageDetections",
    "MaskHead",
    "MaskHeadConfig",
    "MaskIoUConfig",
    "Normalize",
    "PixelConfig",
    "PoolConfig",
    "PriorConfig",
    "Proposals",
    "RPNConfig",
    "RPNHead",
    "Samples",
    "Truth",
    "TwoStageDetector",
    "Yolact",
    "YolactConfig",
    "YolactLossConfig",
    "__version__",
    "assign",
    "box_losses",
    "cell_anchors",
    "draw",
    "flatten_levels",
    "inside_image",
    "label_all",
    "mask_loss",
    "mask_targets",
    "pool_boxes",
    "regression_loss",
    "rpn_losses",
    "select_detections",
    "select_proposals",
    "to_image",
    "truth_of",
    "yolact_config",
    "yolact_plus_config",
]
