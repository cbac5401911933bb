"""What `sweep` varies, and how: options of `train` around those of a recipe."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from apps.common.config import DataConfig, Recipe
from apps.common.learning_options import Varied
from det_heads import YolactConfig
from det_models import DetectorConfig

if TYPE_CHECKING:
    from optuna import Trial

_LR = (0.1, 5.0)
_ANCHORS = (0.5, 2.0)
"""Factors of the recipe's own values, drawn by their logarithms."""
_SIZES = (0.75, 1.0, 1.25)
_GRID = 32
"""Sides are multiples of it."""
_AUGMENT = {"colour": (0.0, 0.5), "crop": (0.5, 1.0), "mosaic": (0.0, 0.5)}


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """Values to try.

    Attributes:
        recipe: whose values are in the middle, and are tried first.
        vary: what of it.
    """

    recipe: Recipe
    vary: tuple[Varied, ...]

    def first(self) -> dict[str, Any]:
        """The recipe's own values, by the names that `options` draws."""
        own = {name: getattr(self.recipe.data.augment, name) for name in _AUGMENT}
        kept = {name: min(max(value, _AUGMENT[name][0]), _AUGMENT[name][1]) for name, value in own.items()}
        values: dict[Varied, dict[str, Any]] = {
            "lr": {"lr": self.recipe.solver.base_lr},
            "size": {"size": 1.0},
            "anchors": {"anchors": 1.0},
            "augmentation": kept,
        }
        return {name: value for part in self.vary for name, value in values[part].items()}

    def options(self, trial: "Trial") -> list[str]:
        """Options of `train` for values that a trial of Optuna draws."""
        drawn: list[str] = []
        if "lr" in self.vary:
            own = self.recipe.solver.base_lr
            drawn += ["--solver.base-lr", f"{trial.suggest_float('lr', own * _LR[0], own * _LR[1], log=True):.4g}"]
        if "size" in self.vary:
            drawn += self._sizes(trial.suggest_categorical("size", _SIZES))
        if "anchors" in self.vary:
            drawn += self._anchors(trial.suggest_float("anchors", *_ANCHORS, log=True))
        if "augmentation" in self.vary:
            for name, (least, greatest) in _AUGMENT.items():
                drawn += [f"--data.augment.{name}", f"{trial.suggest_float(name, least, greatest):.3g}"]
        return drawn

    def _sizes(self, factor: float) -> list[str]:
        data = self.recipe.data
        if factor == 1:
            return []
        if not isinstance(data, DataConfig):
            return ["--data.size", *_scaled([data.size], factor)]  # pyrefly: ignore[missing-attribute]
        options = ["--data.train-sizes", *_scaled(data.train_sizes, factor)]
        options += ["--data.test-size", *_scaled([data.test_size], factor)]
        return [*options, "--data.max-size", str(round(data.max_size * factor))]

    def _anchors(self, factor: float) -> Iterator[str]:
        detector = self.recipe.detector
        if isinstance(detector, YolactConfig):
            name, sizes = "priors", detector.priors.sizes
        elif isinstance(detector, DetectorConfig):
            name, sizes = "rpn.anchors", detector.rpn.anchors.sizes
        else:
            name, sizes = "anchors", detector.anchors.sizes
        for level, own in enumerate(sizes if factor != 1 else ()):
            yield f"--detector.{name}.sizes.{level}"
            yield from (f"{size * factor:.4g}" for size in own)


def _scaled(sides: Sequence[int], factor: float) -> list[str]:
    """Sides in another size; small ones, which the grid would not tell apart, to the pixel."""
    grid = _GRID if min(sides) >= 8 * _GRID else 1
    return [str(max(grid, round(side * factor / grid) * grid)) for side in sides]
