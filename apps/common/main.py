"""The command line that every app has."""

import sys
from collections.abc import Callable
from functools import partial, update_wrapper

from apps.common.app import App
from apps.common.augmentations import augmentations
from apps.common.benchmark import benchmark
from apps.common.check import check
from apps.common.compare import compare
from apps.common.completion import show_completion
from apps.common.convert import convert
from apps.common.convert_data import convert_data
from apps.common.evaluate import evaluate
from apps.common.export import export
from apps.common.naming import options_named
from apps.common.predict import predict
from apps.common.replay import replay
from apps.common.report import report
from apps.common.show_recipes import show_recipes
from apps.common.show_weights import show_weights
from apps.common.sweep import sweep
from apps.common.train import train
from det_backbones import WeightsError
from det_coco import DataError
from det_engine import distributed
from det_engine.cli import UsageError, dispatch, run_main, take_option
from det_models import CheckpointError, OptionError

Command = Callable[[App, list[str]], int | None]


def completion(app: App, args: list[str]) -> None:
    """Print what bash and zsh need to complete commands and options."""
    show_completion(app, args, COMMANDS)


COMMANDS: dict[str, Command] = {
    "train": train,
    "sweep": sweep,
    "eval": evaluate,
    "predict": predict,
    "augmentations": augmentations,
    "benchmark": benchmark,
    "check": check,
    "convert": convert,
    "export": export,
    "convert-data": convert_data,
    "report": report,
    "compare": compare,
    "replay": replay,
    "recipes": show_recipes,
    "weights": show_weights,
    "completion": completion,
}


def main(app: App, args: list[str] | None = None) -> int:
    """Run a command of an app and return its exit status (see :func:`det_engine.cli.run_main`)."""
    commands = {name: update_wrapper(partial(command, app), command) for name, command in COMMANDS.items()}
    arguments = sys.argv[1:] if args is None else args
    count = _processes_wanted(arguments)
    if count != 1 and not distributed.is_launched():
        command = [sys.executable, "-m", f"apps.{app.name}", *arguments]
        return run_main(partial(distributed.launch, count, command))
    errors = (DataError, WeightsError, CheckpointError, OptionError)
    naming = partial(options_named, app)
    return run_main(partial(dispatch, commands, arguments, f"apps/{app.name}", naming), errors)


def _processes_wanted(args: list[str]) -> int:
    """The number that `--nproc` names; what is no number is left to the command, which says so.

    A sweep is one process, whose trainings have as many.
    """
    if args[:1] == ["sweep"]:
        return 1
    try:
        number, _ = take_option(args, "nproc")
    except UsageError:
        return 1
    return int(number) if number is not None and number.isdecimal() else 1
