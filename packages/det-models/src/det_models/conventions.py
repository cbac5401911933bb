"""The conventions of the reference systems, each a complete :class:`~det_models.DetectorConfig`."""

from dataclasses import replace

from det_backbones import MASKRCNN_BENCHMARK_PIXELS, MMDETECTION_PIXELS, TORCHVISION_PIXELS
from det_heads import (
    AnchorConfig,
    BoxCodingConfig,
    BoxHeadConfig,
    CascadeConfig,
    MaskHeadConfig,
    PoolConfig,
    RPNConfig,
)
from det_models.detector_config import DetectorConfig

__all__ = [
    "detectron2_cascade_config",
    "detectron2_config",
    "maskrcnn_benchmark_config",
    "mmdetection_cascade_config",
    "mmdetection_config",
    "mmdetection_v1_cascade_config",
    "mmdetection_v1_config",
    "torchvision_config",
    "torchvision_v2_config",
]


def detectron2_config(num_classes: int = 80, *, mask: bool = True) -> DetectorConfig:
    """Faster / Mask R-CNN with FPN as detectron2's model zoo has them.

    Source: facebookresearch/detectron2, configs/Base-RCNN-FPN.yaml and detectron2/config/defaults.py.
    Fits a backbone with MSRA weights, stride in the first 1x1 convolution, frozen batch norm (eps 1e-5).

    Args:
        num_classes: Object classes.
        mask: Mask R-CNN (True) or Faster R-CNN.
    """
    return DetectorConfig(num_classes=num_classes, mask=MaskHeadConfig() if mask else None)


def detectron2_cascade_config(num_classes: int = 80, *, mask: bool = True) -> DetectorConfig:
    """Cascade R-CNN / Cascade Mask R-CNN of detectron2's model zoo.

    Source: facebookresearch/detectron2, configs/Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml and
    detectron2/modeling/roi_heads/cascade_rcnn.py. Fits the same backbone as :func:`detectron2_config`.

    Args:
        num_classes: Object classes.
        mask: Cascade Mask R-CNN (True) or Cascade R-CNN.
    """
    config = detectron2_config(num_classes, mask=mask)
    return replace(
        config,
        rpn=replace(config.rpn, post_nms_train=2000),
        box=replace(config.box, class_agnostic=True),
        cascade=CascadeConfig(),
    )


def torchvision_config(num_classes: int = 90, *, mask: bool = True) -> DetectorConfig:
    """``fasterrcnn_resnet50_fpn`` / ``maskrcnn_resnet50_fpn`` of torchvision.

    Source: torchvision/models/detection/{faster_rcnn,mask_rcnn,rpn,roi_heads,_utils}.py.
    Fits a backbone with torchvision weights (RGB, stride in the 3x3 convolution).

    Args:
        num_classes: Object classes; torchvision's own COCO models count category ids, 90 (91 with background).
        mask: Mask R-CNN (True) or Faster R-CNN.
    """
    pool = {"sampling_ratio": 2, "aligned": False, "level_epsilon": 1e-6, "level_epsilon_inside_log": False}
    return DetectorConfig(
        num_classes=num_classes,
        pixels=TORCHVISION_PIXELS,
        rpn=RPNConfig(
            anchors=AnchorConfig(rounding="round", grid="image"),
            beta=1 / 9,
            normalizer="sampled",
            post_nms_train=2000,
            min_size=1e-3,
            min_size_inclusive=True,
            nms_scores="sigmoid",
        ),
        box=BoxHeadConfig(pool=PoolConfig(size=7, **pool), beta=1 / 9, min_size=1e-2),
        mask=MaskHeadConfig(
            pool=PoolConfig(size=14, **pool),
            target="bitmap",
            bitmap_aligned=False,
            bitmap_threshold=None,
            paste="expanded",
        )
        if mask
        else None,
        init="torchvision",
    )


def torchvision_v2_config(num_classes: int = 90, *, mask: bool = True) -> DetectorConfig:
    """``fasterrcnn_resnet50_fpn_v2`` / ``maskrcnn_resnet50_fpn_v2`` of torchvision.

    Source: torchvision/models/detection/{faster_rcnn,mask_rcnn}.py; the heads of Li et al. (arXiv:2111.11429). Fits the
    same backbone as :func:`torchvision_config`, with batch normalisation (eps 1e-5) in the body and in the pyramid.

    Args:
        num_classes: As there.
        mask: Mask R-CNN (True) or Faster R-CNN.
    """
    config = torchvision_config(num_classes, mask=mask)
    return replace(
        config,
        rpn=replace(config.rpn, convs=2),
        box=replace(config.box, convs=4, norm="bn", layers=1),
        mask=None if config.mask is None else replace(config.mask, norm="bn"),
    )


def maskrcnn_benchmark_config(num_classes: int = 80, *, mask: bool = True) -> DetectorConfig:
    """``e2e_{faster,mask}_rcnn_R_50_FPN_1x`` of maskrcnn-benchmark, which is also the mlcommons Mask R-CNN.

    Source: facebookresearch/maskrcnn-benchmark, configs/e2e_mask_rcnn_R_50_FPN_1x.yaml and
    maskrcnn_benchmark/config/defaults.py. Inclusive widths, integer anchors, unaligned RoIAlign, proposals chosen over
    the whole batch. Fits a backbone with MSRA weights, stride in the first 1x1, frozen batch norm without epsilon.

    Args:
        num_classes: Object classes.
        mask: Mask R-CNN (True) or Faster R-CNN.
    """
    pool = {"sampling_ratio": 2, "aligned": False, "level_epsilon": 1e-6}
    return DetectorConfig(
        num_classes=num_classes,
        pixels=MASKRCNN_BENCHMARK_PIXELS,
        rpn=RPNConfig(
            anchors=AnchorConfig(rounding="legacy", straddle=0.0),
            beta=1 / 9,
            normalizer="sampled",
            post_nms_train=2000,
            post_nms_train_scope="batch",
            min_size_inclusive=True,
            pre_nms_scores="sigmoid",
            nms_scores="sigmoid",
        ),
        box=BoxHeadConfig(pool=PoolConfig(size=7, **pool), beta=1.0),
        mask=MaskHeadConfig(pool=PoolConfig(size=14, **pool), target="polygon_legacy", paste="expanded")
        if mask
        else None,
        offset=1.0,
        init="maskrcnn_benchmark",
    )


def mmdetection_config(num_classes: int = 80, *, mask: bool = True) -> DetectorConfig:
    """``{faster,mask}_rcnn_r50_fpn_1x_coco`` of mmdetection 2 and 3.

    Source: open-mmlab/mmdetection 2.13, configs/_base_/models/{faster,mask}_rcnn_r50_fpn.py and mmdet/models. Fits a
    backbone with torchvision weights, stride in the 3x3 convolution, batch norm with frozen statistics (eps 1e-5).

    Args:
        num_classes: Object classes.
        mask: Mask R-CNN (True) or Faster R-CNN.
    """
    clamped = BoxCodingConfig(clamp_below=True)
    pool = {"level_epsilon": 1e-6, "finest_size": 56.0}
    return DetectorConfig(
        num_classes=num_classes,
        pixels=MMDETECTION_PIXELS,
        rpn=RPNConfig(
            coding=clamped,
            low_quality_iou=0.3,
            reassign_low_quality=True,
            normalizer="sampled",
            pre_nms_scores="sigmoid",
            nms_scores="sigmoid",
        ),
        box=BoxHeadConfig(
            pool=PoolConfig(size=7, **pool),
            coding=replace(clamped, weights=(10.0, 10.0, 5.0, 5.0)),
            reassign_best=mask,
        ),
        mask=MaskHeadConfig(pool=PoolConfig(size=14, **pool), target="bitmap") if mask else None,
        init="mmdetection",
    )


def mmdetection_cascade_config(num_classes: int = 80, *, mask: bool = True) -> DetectorConfig:
    """``cascade_{,mask_}rcnn_r50_fpn_1x_coco`` of mmdetection 2 and 3.

    Source: open-mmlab/mmdetection 2.13, configs/_base_/models/cascade_{,mask_}rcnn_r50_fpn.py and
    mmdet/models/roi_heads/cascade_roi_head.py. Fits the same backbone as :func:`mmdetection_config`.

    Args:
        num_classes: Object classes.
        mask: Cascade Mask R-CNN (True) or Cascade R-CNN.
    """
    config = mmdetection_config(num_classes, mask=mask)
    anchors = replace(config.rpn.anchors, straddle=0.0, match_straddling=False)
    third = 1 / 0.033, 1 / 0.033, 1 / 0.067, 1 / 0.067
    return replace(
        config,
        rpn=replace(config.rpn, anchors=anchors, beta=1 / 9, post_nms_train=2000),
        box=replace(config.box, reassign_best=False, class_agnostic=True, beta=1.0),
        cascade=CascadeConfig(
            coding_weights=((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), third),
            resample=True,
            loss_weights=(1.0, 0.5, 0.25),
            gradient_scale=1.0,
            scores="mean_logit",
            mask_heads="per_stage",
        ),
    )


def mmdetection_v1_config(num_classes: int = 80, *, mask: bool = True) -> DetectorConfig:
    """``{faster,mask}_rcnn_r50_fpn_1x`` of mmdetection 1, as the later versions run its checkpoints.

    Source: open-mmlab/mmdetection 2.13, configs/legacy_1.x and docs/compatibility.md: inclusive widths, rounded
    anchors, unaligned RoIAlign. Fits the same backbone as :func:`mmdetection_config`. Its masks were pasted by OpenCV's
    resizing of whole pixels; here they are pasted as in version 2.

    Args:
        num_classes: Object classes.
        mask: Mask R-CNN (True) or Faster R-CNN.
    """
    return _mmdetection_v1(mmdetection_config(num_classes, mask=mask))


def mmdetection_v1_cascade_config(num_classes: int = 80, *, mask: bool = True) -> DetectorConfig:
    """``cascade_{,mask_}rcnn_r50_fpn_1x`` of mmdetection 1; see :func:`mmdetection_v1_config`.

    Args:
        num_classes: Object classes.
        mask: Cascade Mask R-CNN (True) or Cascade R-CNN.
    """
    return _mmdetection_v1(mmdetection_cascade_config(num_classes, mask=mask))


def _mmdetection_v1(config: DetectorConfig) -> DetectorConfig:
    rpn = config.rpn
    return replace(
        config,
        rpn=replace(
            rpn,
            anchors=replace(rpn.anchors, rounding="legacy_round", straddle=0.0, match_straddling=False),
            beta=1 / 9,
            post_nms_train=2000,
        ),
        box=replace(config.box, pool=replace(config.box.pool, sampling_ratio=2, aligned=False), beta=1.0),
        mask=None
        if config.mask is None
        else replace(config.mask, pool=replace(config.mask.pool, sampling_ratio=2, aligned=False)),
        offset=1.0,
    )
