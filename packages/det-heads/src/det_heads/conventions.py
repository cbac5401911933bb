"""The conventions of the reference systems, each a complete :class:`~det_heads.config.DetectorConfig`."""

from det_heads.config import (
    AnchorConfig,
    BoxHeadConfig,
    DetectorConfig,
    MaskHeadConfig,
    PixelConfig,
    PoolConfig,
    RPNConfig,
)

__all__ = ["detectron2_config", "maskrcnn_benchmark_config", "torchvision_config"]


def detectron2_config(num_classes: int = 80, *, mask: bool = True) -> DetectorConfig:
    """Faster / Mask R-CNN with FPN as detectron2's model zoo has them.

    Source: facebookresearch/detectron2, configs/Base-RCNN-FPN.yaml and detectron2/config/defaults.py.
    Fits a backbone with MSRA weights, stride in the first 1x1 convolution, frozen batch norm (eps 1e-5).

    Args:
        num_classes: Object classes.
        mask: Mask R-CNN (True) or Faster R-CNN.
    """
    return DetectorConfig(num_classes=num_classes, mask=MaskHeadConfig() if mask else None)


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
        pixels=PixelConfig(order="rgb", scale=255.0, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
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
        pixels=PixelConfig(mean=(102.9801, 115.9465, 122.7717)),
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
