"""The recipes of Mask and Keypoint R-CNN, each a function that returns the whole configuration of a run."""

from apps.common import recipes
from apps.common.config import DataConfig, TwoStageRecipe
from det_engine import SolverConfig, TrainSettings
from det_models import BackboneConfig, torchvision_keypoint_config


def tiny() -> TwoStageRecipe:
    """``hatch run apps/mask_rcnn train``: the embedded data set, box AP50 >= 0.70 and mask AP50 >= 0.60 in minutes."""
    return recipes.tiny(mask=True)


def scratch_small() -> TwoStageRecipe:
    """``hatch run apps/mask_rcnn train --data DIR --recipe scratch_small``: small real data on a CPU."""
    return recipes.scratch_small(mask=True)


def mask_rcnn_r50_fpn_1x() -> TwoStageRecipe:
    """detectron2 COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x: 38.6 box AP, 35.2 mask AP on val2017."""
    return recipes.detectron2("mask_rcnn_r50_fpn_1x", "detectron2, 12 epochs: 38.6 box / 35.2 mask AP", mask=True)


def mask_rcnn_r50_fpn_3x() -> TwoStageRecipe:
    """detectron2 mask_rcnn_R_50_FPN_3x: 41.0 box AP, 37.2 mask AP."""
    return recipes.detectron2(
        "mask_rcnn_r50_fpn_3x", "detectron2, 37 epochs: 41.0 box / 37.2 mask AP", mask=True, schedule=3
    )


def mask_rcnn_r101_fpn_1x() -> TwoStageRecipe:
    """detectron2's 1x schedule with ResNet-101 (no published figure)."""
    return recipes.detectron2("mask_rcnn_r101_fpn_1x", "detectron2's 1x schedule, ResNet-101", mask=True, depth=101)


def mask_rcnn_r101_fpn_3x() -> TwoStageRecipe:
    """detectron2 mask_rcnn_R_101_FPN_3x: 42.9 box AP, 38.6 mask AP."""
    return recipes.detectron2(
        "mask_rcnn_r101_fpn_3x", "detectron2, 37 epochs: 42.9 box / 38.6 mask AP", mask=True, depth=101, schedule=3
    )


def mask_rcnn_r50_fpn_1x_mlperf() -> TwoStageRecipe:
    """Mlcommons / maskrcnn-benchmark e2e_mask_rcnn_R_50_FPN_1x: MLPerf target 37.7 box AP, 33.9 mask AP."""
    return recipes.maskrcnn_benchmark(
        "mask_rcnn_r50_fpn_1x_mlperf", "mlcommons / maskrcnn-benchmark: 37.7 box / 33.9 mask AP", mask=True
    )


def keypoint_rcnn_r50_fpn() -> TwoStageRecipe:
    """Keypoint R-CNN as torchvision's references/detection train it: 54.6 box AP, 65.0 keypoint AP."""
    epoch = 3500  # steps of 16 of about 56 thousand images with ten labelled keypoints
    return TwoStageRecipe(
        name="keypoint_rcnn_r50_fpn",
        summary="torchvision, 46 epochs: 54.6 box / 65.0 keypoint AP",
        backbone=BackboneConfig(stride_in_1x1=False, freeze_at=2, weights="resnet50-0676ba61.pth"),
        detector=torchvision_keypoint_config(),
        data=DataConfig(batch=16, rounding="torchvision", min_keypoints=10),
        solver=SolverConfig(
            base_lr=0.02,
            reference_batch=16,
            weight_decay=1e-4,
            norm_weight_decay=None,
            warmup_steps=1000,
            warmup_factor=1 / 1000,
            milestones=(36 * epoch, 43 * epoch),
            steps=46 * epoch,
        ),
        train=TrainSettings(log_interval=20, checkpoint_interval=epoch, evaluation_interval=epoch),
    )


def mask_rcnn_swin_t_fpn_1x() -> TwoStageRecipe:
    """``mask-rcnn_swin-t-p4-w7_fpn_1x_coco`` of mmdetection: 42.7 box AP, 39.3 mask AP."""
    return recipes.swin_tiny(
        "mask_rcnn_swin_t_fpn_1x",
        "mmdetection, 12 epochs from timm's Swin-T: there 42.7 box / 39.3 mask AP",
        schedule=1,
    )


def mask_rcnn_swin_t_fpn_3x() -> TwoStageRecipe:
    """``mask-rcnn_swin-t-p4-w7_fpn_ms-crop-3x_coco`` of mmdetection: 46.0 box AP, 41.6 mask AP."""
    return recipes.swin_tiny(
        "mask_rcnn_swin_t_fpn_3x",
        "mmdetection, 36 epochs from timm's Swin-T: there 46.0 box / 41.6 mask AP",
        schedule=3,
    )


def mask_rcnn_vitdet_b() -> TwoStageRecipe:
    """detectron2 ViTDet, ``mask_rcnn_vitdet_b_100ep``: 51.6 box AP, 45.9 mask AP."""
    return recipes.vitdet_base("mask_rcnn_vitdet_b", "detectron2 ViTDet, 100 epochs: there 51.6 box / 45.9 mask AP")


RECIPES = {
    recipe.__name__: recipe
    for recipe in (
        tiny,
        scratch_small,
        mask_rcnn_r50_fpn_1x,
        mask_rcnn_r50_fpn_3x,
        mask_rcnn_r101_fpn_1x,
        mask_rcnn_r101_fpn_3x,
        mask_rcnn_r50_fpn_1x_mlperf,
        mask_rcnn_swin_t_fpn_1x,
        mask_rcnn_swin_t_fpn_3x,
        mask_rcnn_vitdet_b,
        keypoint_rcnn_r50_fpn,
    )
}
