"""``check``: what a data set holds, what is wrong with it, and the options that fit it."""

from pathlib import Path

from apps.common.app import App
from apps.common.commands import read_options, take_recipe
from apps.common.config import Recipe
from apps.common.fitting import fit
from apps.common.learning_options import CheckOptions
from apps.common.splits import annotations_for, data_root
from det_coco import CocoIndex, default_split, find_splits
from det_coco.doctor import Checkup, check_data
from det_coco.doctor.command import present, try_outputs
from det_engine import resolve_device


def check(app: App, args: list[str]) -> int:
    """Read a whole data set, pictures included: what is wrong with it, and the options that fit."""
    recipe, rest = take_recipe(app, args)
    options = read_options(app, "check", rest, CheckOptions(recipe=recipe.name))
    try_outputs(page=options.page, json=options.json, fix=options.fix)
    root, device = data_root(options.data), resolve_device(options.device)
    checkup = check_data(root, workers=options.workers, **annotations_for(recipe.model().tasks))
    indexes = _train_first(root, recipe, checkup)
    proposals = fit(app, recipe, indexes, root, device) if indexes else None
    present(checkup, page=options.page, json=options.json, fix=options.fix, proposals=proposals)
    return checkup.status


def _train_first(root: Path, recipe: Recipe, checkup: Checkup) -> list[CocoIndex]:
    """The splits that have objects, the one to train on first; none where it has no object."""
    splits = find_splits(root, **annotations_for(recipe.model().tasks))
    name = recipe.data.train_split or default_split(splits, "train")
    found = {split: index for split, index in checkup.indexes.items() if (~index.crowd).any()}
    if name not in found:
        return []
    return [found[name], *(index for split, index in found.items() if split != name)]
