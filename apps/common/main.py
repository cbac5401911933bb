"""The command line that every app has."""

import sys
from collections.abc import Callable
from functools import partial

from apps.common.app import App
from apps.common.benchmark import benchmark
from apps.common.convert import convert
from apps.common.evaluate import evaluate
from apps.common.predict import predict
from apps.common.replay import replay
from apps.common.show_recipes import show_recipes
from apps.common.train import train
from det_backbones import WeightsError
from det_coco import DataError
from det_engine import distributed
from det_engine.cli import dispatch, run_main, take_option
from det_models import CheckpointError, OptionError

Command = Callable[[App, list[str]], None]
COMMANDS: dict[str, Command] = {
    "train": train,
    "eval": evaluate,
    "predict": predict,
    "benchmark": benchmark,
    "convert": convert,
    "replay": replay,
    "recipes": show_recipes,
}


def main(app: App, args: list[str] | None = None) -> int:
    """Run a command of an app and return its exit status (see :func:`det_engine.cli.run_main`)."""
    commands = {name: _bound(command, app) for name, command in COMMANDS.items()}
    arguments = sys.argv[1:] if args is None else args
    errors = (DataError, WeightsError, CheckpointError, OptionError)

    def run() -> int | None:
        count = processes_wanted(arguments)
        if count > 1 and not distributed.is_launched():
            return distributed.launch(count, [sys.executable, "-m", f"apps.{app.name}", *arguments])
        return dispatch(commands, arguments, f"apps/{app.name}")

    return run_main(run, errors)


def processes_wanted(args: list[str]) -> int:
    """The number that `--nproc` names; what is no number is left to the command, which says so."""
    number, _ = take_option(args, "nproc")
    return int(number) if number is not None and number.isdecimal() else 1


def _bound(command: Command, app: App) -> Callable[[list[str]], None]:
    bound = partial(command, app)
    bound.__doc__ = command.__doc__  # which the list of commands shows
    return bound
