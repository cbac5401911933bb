"""Steps of an augmentation, one after the other."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from det_coco.augment.scene import Scene

Size = tuple[int, int]


class Step(Protocol):
    """One thing that is done to a picture: it draws its parameters, and gives the scene that follows from them."""

    def __call__(self, scene: Scene, random: np.random.Generator) -> Scene:
        """Draw from `random` alone, so that a picture follows from seed, epoch and index."""
        ...


@runtime_checkable
class Resizing(Protocol):
    """A step that makes other sizes."""

    def output_sizes(self, height: int, width: int) -> Sequence[Size]:
        """All sizes (height, width) that it may make of a canvas."""
        ...


@dataclass(frozen=True)
class Compose:
    """Several steps as one augmentation. Each draws its parameters; pixels are then sampled a single time.

    A step that changes the size of the canvas says which sizes there may be (`output_sizes`); others need not.

    Attributes:
        steps: in their order.
    """

    steps: Sequence[Step]

    @property
    def legacy(self) -> bool:
        """Whether a step has inclusive coordinates, see `Augmentation`."""
        return any(getattr(step, "legacy", False) for step in self.steps)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the pixels: float32 where a step makes fractions."""
        types = [getattr(step, "dtype", torch.uint8) for step in self.steps]
        return torch.float32 if torch.float32 in types else torch.uint8

    def output_sizes(self, height: int, width: int) -> list[Size]:
        """All sizes (height, width) that the steps may make of a picture."""
        sizes = [(height, width)]
        for step in self.steps:
            if isinstance(step, Resizing):
                sizes = list(dict.fromkeys(new for size in sizes for new in step.output_sizes(*size)))
        return sizes

    def __call__(self, scene: Scene, random: np.random.Generator | None) -> Scene:
        """Draw all steps; without `random` none."""
        return scene if random is None else self._apply(scene, random, len(self.steps))

    def _apply(self, scene: Scene, random: np.random.Generator, count: int) -> Scene:
        fresh = scene.another
        for place, step in enumerate(self.steps[:count]):

            def another(random: np.random.Generator, place: int = place) -> Scene:
                return self._apply(fresh(random), random, place)

            scene = step(replace(scene, another=another), random)
        return replace(scene, another=fresh)


@dataclass(frozen=True)
class Maybe:
    """A step that is taken with a probability.

    Attributes:
        probability: 0 to 1.
        step: the step.
    """

    probability: float
    step: Step

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability must be between 0 and 1, got {self.probability}.")

    def output_sizes(self, height: int, width: int) -> list[Size]:
        """The size as it is, and those that the step may make."""
        made = self.step.output_sizes(height, width) if isinstance(self.step, Resizing) else ()
        return [(height, width), *made]

    def __call__(self, scene: Scene, random: np.random.Generator) -> Scene:
        """Draw whether the step is taken."""
        return self.step(scene, random) if random.random() < self.probability else scene
