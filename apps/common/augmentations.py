"""``augmentations``: a sheet of pictures of what a recipe's augmentation does."""

from apps.common.app import App, with_classes
from apps.common.commands import read_options, take_recipe
from apps.common.data import training_loader
from apps.common.learning_options import AugmentationsOptions
from apps.common.printing import say
from apps.common.splits import open_splits
from det_coco import save_picture
from det_coco.outputs import try_files
from det_coco.sheet import augmentation_sheet


def augmentations(app: App, args: list[str]) -> None:
    """Draw what a recipe's augmentation does to the pictures of a data set."""
    recipe, rest = take_recipe(app, args)
    default = AugmentationsOptions(recipe=recipe.name, values=recipe)
    options = read_options(app, "augmentations", rest, default)
    try_files(options.output)
    splits = open_splits(options.data, options.values)
    say(splits)
    recipe = with_classes(options.values, splits.train.num_classes).resolved()
    dataset = training_loader(recipe, splits.train, 0, pin_memory=False).dataset
    positions = dataset.partners[: options.images].tolist()
    sheet = augmentation_sheet(dataset, positions, draws=options.draws)
    print(f"{len(positions)} images as they are, and in their first {options.draws} epochs: ", end="")
    print(save_picture(sheet, options.output))
