"""Mask R-CNN assembled: residual network, pyramid, proposals, box head, mask head."""

from apps.common.app import two_stage
from apps.common.config import TwoStageRecipe
from det_heads import TwoStageDetector


def mask_rcnn(recipe: TwoStageRecipe) -> TwoStageDetector:
    """The network of a recipe, randomly initialised as the recipe's system does it."""
    if recipe.detector.mask is None:
        raise ValueError(f"recipe {recipe.name} has no mask head; it belongs to apps/faster_rcnn")
    return two_stage(recipe)
