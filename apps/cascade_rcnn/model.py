"""Cascade R-CNN assembled: residual network, pyramid, proposals, three box heads, with or without masks."""

from apps.common.app import two_stage
from apps.common.config import TwoStageRecipe
from det_heads import TwoStageDetector


def cascade_rcnn(recipe: TwoStageRecipe) -> TwoStageDetector:
    """The network of a recipe, randomly initialised as the recipe's system does it."""
    if recipe.detector.cascade is None:
        raise ValueError(f"recipe {recipe.name} has no cascade; it belongs to apps/mask_rcnn or apps/faster_rcnn")
    return two_stage(recipe)
