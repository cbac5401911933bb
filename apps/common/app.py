"""What distinguishes one app from another."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic

from apps.common.config import R
from det_engine.cli import UsageError
from det_heads import OneStageConfig, YolactConfig
from det_models import DetectorConfig

if TYPE_CHECKING:
    from det_coco import CocoIndex
    from det_models import Detector


@dataclass(frozen=True, kw_only=True)
class App(Generic[R]):
    """A trainer.

    Attributes:
        name: the folder's name under apps/.
        recipes: by name; the first is what `train` takes by default.
    """

    name: str
    recipes: Mapping[str, Callable[[], R]]

    @property
    def kind(self) -> type[R]:
        """Type of its recipes."""
        return type(next(iter(self.recipes.values()))())

    @property
    def program(self) -> list[str]:
        """What starts it in a process of its own, before a command and its options."""
        return [sys.executable, "-m", f"apps.{self.name}"]

    def network(self, recipe: R) -> Detector:
        """The network of a recipe that a user may have changed.

        Raises:
            UsageError: its fields do not go together, such as more frozen stages than there are, or make it a network
                of another app.
        """
        from det_models import build
        from det_models.size import check_size

        owner = app_of(recipe.detector)
        if owner != self.name:
            raise UsageError(f"This network cannot be built: recipe {recipe.name} as changed belongs to apps/{owner}.")
        try:
            check_size(recipe.model())
            return build(recipe.model())
        except (ImportError, ValueError) as error:
            raise UsageError(f"This network cannot be built: {error}.") from error


def app_of(detector: DetectorConfig | OneStageConfig | YolactConfig) -> str:
    """Name of the app that trains such a detector."""
    if isinstance(detector, YolactConfig):
        return "yolact"
    if isinstance(detector, OneStageConfig):
        return "retinanet"
    if detector.cascade is not None:
        return "cascade_rcnn"
    return "mask_rcnn" if detector.branches else "faster_rcnn"


def with_counts(recipe: R, index: CocoIndex) -> R:
    """The recipe with the classes' numbers of objects and images, where its loss depends on them and has none yet."""
    from det_coco.sampler import class_counts

    if not isinstance(recipe.detector, DetectorConfig):
        return recipe
    box = recipe.detector.box
    if not box.classification.needs_counts or box.classification.object_counts:
        return recipe
    objects, images = class_counts(index)
    counted = replace(box.classification, object_counts=tuple(objects), image_counts=tuple(images))
    return replace(recipe, detector=replace(recipe.detector, box=replace(box, classification=counted)))


def with_classes(recipe: R, num_classes: int) -> R:
    """The recipe for a data set of that many classes."""
    return replace(recipe, detector=replace(recipe.detector, num_classes=num_classes))
