"""Parts of static-shape detectors: Faster, Mask and Cascade R-CNN in two stages, RetinaNet, FCOS and YOLACT in one."""

from typing import TYPE_CHECKING

from det_backbones.lazy import lazily
from det_heads.__about__ import __version__

if TYPE_CHECKING:
    from det_heads.anchors import Anchors, cell_anchors, inside_image
    from det_heads.box_head import BoxHead
    from det_heads.box_regression import overlap_loss
    from det_heads.branch_config import BranchConfig
    from det_heads.branches import Branch
    from det_heads.cascade import CascadeBoxHeads, CascadeMaskHeads
    from det_heads.classification import (
        ClassCounts,
        balanced_weights,
        class_counts,
        class_losses,
        class_probabilities,
        federated_classes,
        focal_loss,
        seesaw_loss,
    )
    from det_heads.classification_config import ClassificationConfig
    from det_heads.coding import BoxCoder, DistanceCoder
    from det_heads.config import (
        AnchorConfig,
        BoxCodingConfig,
        BoxHeadConfig,
        CascadeConfig,
        PixelConfig,
        PoolConfig,
        RPNConfig,
    )
    from det_heads.detections import select_detections
    from det_heads.keypoint_config import KeypointHeadConfig
    from det_heads.keypoint_head import KeypointHead
    from det_heads.losses import box_losses, mask_loss, regression_loss, rpn_losses
    from det_heads.mask_config import MaskHeadConfig
    from det_heads.mask_head import MaskHead, mask_targets
    from det_heads.matching import GroundTruth, Matches, Samples, ground_truth, label_all, match, subsample
    from det_heads.one_stage import (
        DenseHead,
        DenseOutputs,
        IoUAssignment,
        LocationAssignment,
        LocationConfig,
        OneStageConfig,
        OneStageDetector,
        select_dense,
    )
    from det_heads.parts import WHOLE, BatchPart
    from det_heads.pixels import Normalize
    from det_heads.pooling import RoIPool
    from det_heads.postprocess import ImageDetections, Original, to_image
    from det_heads.proposals import Proposals, select_proposals
    from det_heads.region_proposals import RegionProposals
    from det_heads.rpn import RPNHead, flatten_levels
    from det_heads.suppression import soft_nms
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
else:
    __getattr__, __dir__ = lazily(__name__, __file__)

__all__ = [
    "WHOLE",
    "AnchorConfig",
    "Anchors",
    "BatchPart",
    "BoxCoder",
    "BoxCodingConfig",
    "BoxHead",
    "BoxHeadConfig",
    "Branch",
    "BranchConfig",
    "CascadeBoxHeads",
    "CascadeConfig",
    "CascadeMaskHeads",
    "ClassCounts",
    "ClassificationConfig",
    "DenseHead",
    "DenseOutputs",
    "DistanceCoder",
    "GroundTruth",
    "ImageDetections",
    "IoUAssignment",
    "KeypointHead",
    "KeypointHeadConfig",
    "LocationAssignment",
    "LocationConfig",
    "MaskHead",
    "MaskHeadConfig",
    "MaskIoUConfig",
    "Matches",
    "Normalize",
    "OneStageConfig",
    "OneStageDetector",
    "Original",
    "PixelConfig",
    "PoolConfig",
    "PriorConfig",
    "Proposals",
    "RPNConfig",
    "RPNHead",
    "RegionProposals",
    "RoIPool",
    "Samples",
    "TwoStageDetector",
    "Yolact",
    "YolactConfig",
    "YolactLossConfig",
    "__version__",
    "balanced_weights",
    "box_losses",
    "cell_anchors",
    "class_counts",
    "class_losses",
    "class_probabilities",
    "federated_classes",
    "flatten_levels",
    "focal_loss",
    "ground_truth",
    "inside_image",
    "label_all",
    "mask_loss",
    "mask_targets",
    "match",
    "overlap_loss",
    "regression_loss",
    "rpn_losses",
    "seesaw_loss",
    "select_dense",
    "select_detections",
    "select_proposals",
    "soft_nms",
    "subsample",
    "to_image",
    "yolact_config",
    "yolact_plus_config",
]
