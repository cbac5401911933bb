"""What distinguishes one app from another."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Generic

import torch

from apps.common.config import BackboneConfig, R, TwoStageRecipe
from det_backbones import FPN, ResNetFPN, resnet
from det_engine.cli import UsageError
from det_heads import CascadeDetector, TwoStageDetector, Yolact
from det_ops import Conv2d

Detector = TwoStageDetector | Yolact


@dataclass(frozen=True, kw_only=True)
class App(Generic[R]):
    """A trainer.

    Attributes:
        name: the folder's name under apps/.
        recipes: by name; the first is what `train` takes by default.
        build: the network of a recipe, whose detector already has the data's number of classes.
    """

    name: str
    recipes: Mapping[str, Callable[[], R]]
    build: Callable[[R], Detector]

    @property
    def kind(self) -> type[R]:
        """Type of its recipes."""
        return type(next(iter(self.recipes.values()))())

    def network(self, recipe: R) -> Detector:
        """The network of a recipe that a user may have changed.

        Raises:
            UsageError: its fields do not go together, such as more frozen stages than there are.
        """
        try:
            return self.build(recipe)
        except ValueError as error:
            raise UsageError(f"This network cannot be built: {error}.") from error


def backbone(config: BackboneConfig) -> ResNetFPN:
    """The residual network and its pyramid."""
    body = resnet(
        config.depth,
        norm=config.norm,
        norm_eps=config.norm_eps,
        stride_in_1x1=config.stride_in_1x1,
        groups=config.groups,
        width_per_group=config.width_per_group,
        width=config.width,
        freeze_at=config.freeze_at,
    )
    pyramid = FPN(
        body.out_channels,
        config.pyramid_channels,
        norm=config.pyramid_norm,
        norm_eps=config.norm_eps,
        initialization=config.pyramid_init,
    )
    return ResNetFPN(body, pyramid)


def two_stage(recipe: TwoStageRecipe) -> TwoStageDetector:
    """Backbone and heads of a recipe, randomly initialised as its system does it; NHWC, which convolutions prefer."""
    kind = TwoStageDetector if recipe.detector.cascade is None else CascadeDetector
    detector = kind(backbone(recipe.backbone), recipe.detector)
    Conv2d.convert(detector)
    return detector.to(memory_format=torch.channels_last)


def with_classes(recipe: R, num_classes: int) -> R:
    """The recipe for a data set of that many classes."""
    return replace(recipe, detector=replace(recipe.detector, num_classes=num_classes))
