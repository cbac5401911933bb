"""The command line that every app has."""

import sys
from collections.abc import Callable
from functools import partial

from apps.common.app import App
from apps.common.benchmark import benchmark
from apps.common.evaluate import evaluate
from apps.common.predict import predict
from apps.common.show_recipes import show_recipes
from apps.common.train import train
from det_backbones import WeightsError
from det_coco import DataError
from det_engine.cli import dispatch, run_main
from det_heads.checkpoints import CheckpointError

Command = Callable[[App, list[str]], None]
COMMANDS: dict[str, Command] = {
    "train": train,
    "eval": evaluate,
    "predict": predict,
    "benchmark": benchmark,
    "recipes": show_recipes,
}


def main(app: App, args: list[str] | None = None) -> int:
    """Run a command of an app and return its exit status (see :func:`det_engine.cli.run_main`)."""
    commands = {name: _bound(command, app) for name, command in COMMANDS.items()}
    arguments = sys.argv[1:] if args is None else args
    errors = (DataError, WeightsError, CheckpointError)
    return run_main(lambda: dispatch(commands, arguments, f"apps/{app.name}"), errors)


def _bound(command: Command, app: App) -> Callable[[list[str]], None]:
    bound = partial(command, app)
    bound.__doc__ = command.__doc__  # which the list of commands shows
    return bound
