"""The recipes of Faster R-CNN, each a function that returns the whole configuration of a run."""

from dataclasses import replace

from apps.common import recipes
from apps.common.config import TwoStageRecipe


def tiny() -> TwoStageRecipe:
    """``hatch run apps/faster_rcnn train``: the embedded data set in minutes."""
    return recipes.tiny(mask=False)


def scratch_small() -> TwoStageRecipe:
    """``hatch run apps/faster_rcnn train --data DIR --recipe scratch_small``: small real data on a CPU."""
    return recipes.scratch_small(mask=False)


def faster_rcnn_r50_fpn_1x() -> TwoStageRecipe:
    """detectron2 COCO-Detection/faster_rcnn_R_50_FPN_1x: 37.9 box AP on val2017."""
    return recipes.detectron2("faster_rcnn_r50_fpn_1x", "detectron2, 12 epochs: 37.9 box AP", mask=False)


def faster_rcnn_r50_fpn_1x_smooth() -> TwoStageRecipe:
    """The 1x recipe with label smoothing 0.1, as the Ascend model zoo's read-me lists it (its code has none)."""
    recipe = faster_rcnn_r50_fpn_1x()
    return replace(
        recipe,
        name="faster_rcnn_r50_fpn_1x_smooth",
        summary="the 1x recipe with label smoothing 0.1; not detectron2's recipe, no published figure",
        detector=replace(recipe.detector, box=replace(recipe.detector.box, label_smoothing=0.1)),
    )


def faster_rcnn_r50_fpn_3x() -> TwoStageRecipe:
    """detectron2 faster_rcnn_R_50_FPN_3x: 40.2 box AP."""
    return recipes.detectron2("faster_rcnn_r50_fpn_3x", "detectron2, 37 epochs: 40.2 box AP", mask=False, schedule=3)


def faster_rcnn_r101_fpn_1x() -> TwoStageRecipe:
    """detectron2's 1x schedule with ResNet-101 (no published figure)."""
    return recipes.detectron2("faster_rcnn_r101_fpn_1x", "detectron2's 1x schedule, ResNet-101", mask=False, depth=101)


def faster_rcnn_r101_fpn_3x() -> TwoStageRecipe:
    """detectron2 faster_rcnn_R_101_FPN_3x: 42.0 box AP."""
    return recipes.detectron2(
        "faster_rcnn_r101_fpn_3x", "detectron2, 37 epochs: 42.0 box AP", mask=False, depth=101, schedule=3
    )


def faster_rcnn_x101_fpn_3x() -> TwoStageRecipe:
    """ResNeXt-101-32x8d with detectron2's 3x schedule (43.0 box AP with its own ImageNet weights)."""
    recipe = recipes.detectron2(
        "faster_rcnn_x101_fpn_3x", "ResNeXt-101-32x8d, detectron2's 3x schedule", mask=False, depth=101, schedule=3
    )
    return recipes.resnext101(recipe)


RECIPES = {
    recipe.__name__: recipe
    for recipe in (
        tiny,
        scratch_small,
        faster_rcnn_r50_fpn_1x,
        faster_rcnn_r50_fpn_1x_smooth,
        faster_rcnn_r50_fpn_3x,
        faster_rcnn_r101_fpn_1x,
        faster_rcnn_r101_fpn_3x,
        faster_rcnn_x101_fpn_3x,
    )
}
