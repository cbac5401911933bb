"""``augmentations``: a sheet of pictures of what a recipe's augmentation does."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from apps.common.app import App, with_classes
from apps.common.config import Recipe
from apps.common.data import training_loader
from apps.common.options import take_recipe
from apps.common.printing import say
from apps.common.splits import open_splits
from det_coco import save_picture
from det_coco.sheet import augmentation_sheet
from det_engine.options import override


@dataclass(frozen=True, kw_only=True)
class AugmentationsOptions:
    """Options of `augmentations` beside the fields of the recipe."""

    recipe: str
    """Where the fields below start from; `recipes` lists them."""
    data: Path | None = None
    """Data set: a folder or an annotation file; by default the embedded synthetic one."""
    output: Path = Path("augmentations.png")
    """The picture to write."""
    images: int = 4
    """Images, one a row."""
    draws: int = 4
    """What the first epochs make of each, one a column."""
    values: Annotated[Recipe, tyro.conf.arg(name="")]

    def __post_init__(self) -> None:
        for name in ("images", "draws"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


FIRST = ("--recipe", "--data", "--output", "--images", "--draws")
"""What people set most, which the help begins with."""


def augmentations(app: App, args: list[str]) -> None:
    """Draw what a recipe's augmentation does to the pictures of a data set."""
    recipe, rest = take_recipe(app, args)
    default = AugmentationsOptions(recipe=recipe.name, values=recipe)
    options = override(default, rest, f"apps/{app.name} augmentations", augmentations.__doc__, FIRST)
    splits = open_splits(options.data, options.values)
    say(splits)
    recipe = with_classes(options.values, splits.train.num_classes).resolved()
    dataset = training_loader(recipe, splits.train, 0, pin_memory=False).dataset
    positions = dataset.partners[: options.images].tolist()
    sheet = augmentation_sheet(dataset, positions, draws=options.draws)
    print(f"{len(positions)} images as they are, and in their first {options.draws} epochs: ", end="")
    print(save_picture(sheet, options.output))
