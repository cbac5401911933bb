"""``recipes [NAME] [--like CONFIGURATION]``."""

import json
import sys

from apps.common.app import App
from apps.common.config import to_dict
from apps.common.like import show_alike
from det_engine.cli import UsageError, print_pairs, take_option, unknown

HELP = """usage: apps/{app} recipes [NAME] [--like CONFIGURATION]

Lists the recipes, or shows the one called NAME. --like finds the recipe for a
configuration of another system:
  recipes --like COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x"""


def show_recipes(app: App, args: list[str]) -> None:
    """List the recipes, or show one in full."""
    if args and args[0] in ("-h", "--help"):
        print(HELP.format(app=app.name))
        return
    like, args = take_option(args, "like")
    if like is not None:
        show_alike(like)
        return
    if not args:
        summaries = {name: recipe().summary for name, recipe in app.recipes.items()}
        if sys.stdout.isatty():
            print_pairs(summaries.items())
        else:  # a line each, for other programs
            width = max(map(len, summaries))
            print("\n".join(f"{name:<{width}}  {summary}" for name, summary in summaries.items()))
        return
    if len(args) > 1:
        raise UsageError(f"recipes takes one name, got {' '.join(args)}.")
    if args[0] not in app.recipes:
        raise unknown("recipe", args[0], app.recipes)
    print(json.dumps(to_dict(app.recipes[args[0]]()), indent=2))
