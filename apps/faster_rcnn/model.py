"""Faster R-CNN assembled: residual network, pyramid, proposals, box head."""

from apps.common.app import two_stage
from apps.common.config import TwoStageRecipe
from det_heads import TwoStageDetector


def faster_rcnn(recipe: TwoStageRecipe) -> TwoStageDetector:
    """The network of a recipe, randomly initialised as the recipe's system does it."""
    if recipe.detector.mask is not None:
        raise ValueError(f"recipe {recipe.name} has a mask head; it belongs to apps/mask_rcnn")
    return two_stage(recipe)
