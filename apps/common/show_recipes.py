"""``recipes [NAME]``."""

import json

from apps.common.app import App
from apps.common.config import to_dict
from det_engine.cli import UsageError, unknown


def show_recipes(app: App, args: list[str]) -> None:
    """List the recipes, or show one in full."""
    if not args:
        width = max(map(len, app.recipes))
        for name, recipe in app.recipes.items():
            print(f"{name:<{width}}  {recipe().summary}")
        return
    if args[0] in ("-h", "--help"):
        print(f"usage: apps/{app.name} recipes [NAME]\n\nWithout NAME all recipes are listed.")
        return
    if len(args) > 1:
        raise UsageError(f"recipes takes one name, got {' '.join(args)}.")
    if args[0] not in app.recipes:
        raise unknown("recipe", args[0], app.recipes)
    print(json.dumps(to_dict(app.recipes[args[0]]()), indent=2))
