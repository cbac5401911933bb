"""The recipes of Cascade (Mask) R-CNN, each a function that returns the whole configuration of a run."""

from dataclasses import replace

from apps.common import recipes
from apps.common.config import DataConfig, TwoStageRecipe
from det_backbones.depth import Depth
from det_engine import SolverConfig, TrainSettings
from det_heads import CascadeConfig
from det_models import BackboneConfig, detectron2_cascade_config, mmdetection_cascade_config


def tiny() -> TwoStageRecipe:
    """``hatch run apps/cascade_rcnn train``: the embedded data set in minutes; Mask R-CNN with three stages."""
    return _cascade(recipes.tiny(mask=True))


def scratch_small() -> TwoStageRecipe:
    """``hatch run apps/cascade_rcnn train --data DIR --recipe scratch_small``: small real data on a CPU."""
    return _cascade(recipes.scratch_small(mask=True))


def cascade_rcnn_r50_fpn_1x() -> TwoStageRecipe:
    """detectron2's Cascade Mask R-CNN without its masks (no published figure)."""
    return _detectron2("cascade_rcnn_r50_fpn_1x", "detectron2's cascade without masks", mask=False)


def cascade_mask_rcnn_r50_fpn_1x() -> TwoStageRecipe:
    """detectron2 Misc/cascade_mask_rcnn_R_50_FPN_1x: 42.1 box AP, 36.4 mask AP on val2017."""
    return _detectron2("cascade_mask_rcnn_r50_fpn_1x", "detectron2, 12 epochs: 42.1 box / 36.4 mask AP")


def cascade_mask_rcnn_r50_fpn_3x() -> TwoStageRecipe:
    """detectron2 Misc/cascade_mask_rcnn_R_50_FPN_3x: 44.3 box AP, 38.5 mask AP."""
    return _detectron2("cascade_mask_rcnn_r50_fpn_3x", "detectron2, 37 epochs: 44.3 box / 38.5 mask AP", schedule=3)


def cascade_rcnn_r101_fpn_1x() -> TwoStageRecipe:
    """detectron2's 1x schedule with ResNet-101, without masks (no published figure)."""
    return _detectron2(
        "cascade_rcnn_r101_fpn_1x", "detectron2's cascade without masks, ResNet-101", mask=False, depth=101
    )


def cascade_mask_rcnn_r101_fpn_1x() -> TwoStageRecipe:
    """detectron2's 1x schedule with ResNet-101 (no published figure)."""
    return _detectron2("cascade_mask_rcnn_r101_fpn_1x", "detectron2's 1x schedule, ResNet-101", depth=101)


def cascade_rcnn_r50_fpn_1x_mmdet() -> TwoStageRecipe:
    """``cascade_rcnn_r50_fpn_1x_coco`` of mmdetection: 40.3 box AP."""
    return _mmdetection("cascade_rcnn_r50_fpn_1x_mmdet", "mmdetection, 12 epochs: 40.3 box AP", mask=False)


def cascade_mask_rcnn_r50_fpn_1x_mmdet() -> TwoStageRecipe:
    """``cascade_mask_rcnn_r50_fpn_1x_coco`` of mmdetection: 41.2 box AP, 35.9 mask AP."""
    return _mmdetection("cascade_mask_rcnn_r50_fpn_1x_mmdet", "mmdetection, 12 epochs: 41.2 box / 35.9 mask AP")


def cascade_mask_rcnn_r101_fpn_1x_mmdet() -> TwoStageRecipe:
    """``cascade_mask_rcnn_r101_fpn_1x_coco`` of mmdetection: 42.9 box AP, 37.3 mask AP."""
    return _mmdetection(
        "cascade_mask_rcnn_r101_fpn_1x_mmdet", "mmdetection, 12 epochs: 42.9 box / 37.3 mask AP", depth=101
    )


def _cascade(recipe: TwoStageRecipe) -> TwoStageRecipe:
    """The recipe of a plain detector with detectron2's three stages."""
    box = replace(recipe.detector.box, class_agnostic=True)
    return replace(recipe, detector=replace(recipe.detector, box=box, cascade=CascadeConfig()))


def _detectron2(name: str, summary: str, *, mask: bool = True, depth: Depth = 50, schedule: int = 1) -> TwoStageRecipe:
    recipe = recipes.detectron2(name, summary, mask=mask, depth=depth, schedule=schedule)
    return replace(recipe, detector=detectron2_cascade_config(mask=mask))


def _mmdetection(name: str, summary: str, *, mask: bool = True, depth: Depth = 50) -> TwoStageRecipe:
    """The 1x schedule of mmdetection: torchvision's weights, one scale, affine maps of batch norm trained."""
    epoch = 7330  # steps of 16 of the 117,266 images with objects, the two orientations filled up apart
    return TwoStageRecipe(
        name=name,
        summary=summary,
        backbone=BackboneConfig(
            depth=depth,
            norm="frozen_statistics_bn",
            stride_in_1x1=False,
            freeze_at=2,
            pyramid_init="xavier",
            weights={50: "resnet50-0676ba61.pth", 101: "resnet101-63fe2227.pth"}[depth],
        ),
        detector=mmdetection_cascade_config(mask=mask),
        data=DataConfig(batch=16, train_sizes=(800,), rounding="mmdetection"),
        solver=SolverConfig(
            base_lr=0.02,
            reference_batch=16,
            weight_decay=1e-4,
            norm_weight_decay=None,
            warmup_steps=500,
            warmup_factor=1 / 1000,
            milestones=(8 * epoch, 11 * epoch),
            steps=12 * epoch,
        ),
        train=TrainSettings(log_interval=50, checkpoint_interval=epoch, evaluation_interval=epoch),
    )


RECIPES = {
    recipe.__name__: recipe
    for recipe in (
        tiny,
        scratch_small,
        cascade_rcnn_r50_fpn_1x,
        cascade_mask_rcnn_r50_fpn_1x,
        cascade_mask_rcnn_r50_fpn_3x,
        cascade_rcnn_r101_fpn_1x,
        cascade_mask_rcnn_r101_fpn_1x,
        cascade_rcnn_r50_fpn_1x_mmdet,
        cascade_mask_rcnn_r50_fpn_1x_mmdet,
        cascade_mask_rcnn_r101_fpn_1x_mmdet,
    )
}
