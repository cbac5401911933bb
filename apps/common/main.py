"""The command line that every app has."""

import sys
from functools import partial

from apps.common.app import App
from apps.common.commands import COMMANDS
from apps.common.naming import options_named
from det_backbones import WeightsError
from det_coco import DataError
from det_engine import launching
from det_engine.cli import UsageError, chosen, run_main, take_option
from det_models import CheckpointError, OptionError


def main(app: App, args: list[str] | None = None) -> int:
    """Run a command of an app and return its exit status (see :func:`det_engine.cli.run_main`)."""
    arguments = sys.argv[1:] if args is None else args
    count = _processes_wanted(arguments)
    if count != 1 and not launching.is_launched():
        command = [*app.program, *arguments]
        return run_main(partial(launching.launch, count, command))
    errors = (DataError, WeightsError, CheckpointError, OptionError)
    return run_main(partial(_run, app, arguments), errors)


def _run(app: App, args: list[str]) -> int | None:
    """Run the command that the arguments begin with."""
    abouts = {name: command.about for name, command in COMMANDS.items()}
    name = chosen(abouts, args, f"apps/{app.name}")
    if name is None:
        return 0
    with options_named(app, name):
        work = COMMANDS[name].load(app, args[1:])
        return work(app, args[1:])


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
