"""Options that several commands share."""

from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from apps.common.app import App
from apps.common.config import Recipe
from det_engine import RunDirectory, describe_environment, distributed
from det_engine.cli import take_option, unknown

PACKAGES = ("det-ops", "det-backbones", "det-heads", "det-models", "det-coco", "pycocotools")
"""Distributions whose versions every run records."""


def take_recipe(app: App, args: list[str]) -> tuple[Recipe, list[str]]:
    """The recipe that `--recipe` names, by default the app's first, and the other arguments.

    Raises:
        UsageError: there is no such recipe; names the nearest.
    """
    name, rest = take_option(args, "recipe", next(iter(app.recipes)))
    if name not in app.recipes:
        raise unknown("recipe", str(name), app.recipes)
    return app.recipes[str(name)](), rest


def new_run(path: Path, config: Any, device: torch.device, *, replace: bool = False) -> RunDirectory:
    """The directory of a new run; rank 0 makes it, and decides on its name."""
    path = distributed.broadcast_object(path)
    if distributed.is_main():
        environment = describe_environment(device, PACKAGES)
        RunDirectory.create(path, config=config, environment=environment, replace=replace)
    distributed.broadcast_object(None)
    return RunDirectory(path)


def default_output(app: App, what: str) -> Path:
    """A new folder under runs/, named after the app, the recipe or command, and the time."""
    return Path("runs") / app.name / f"{what}-{datetime.now():%Y%m%d-%H%M%S}"
