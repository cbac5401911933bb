"""The command line that every app has."""

import sys
from functools import partial

from det_backbones import WeightsError
from det_coco import DataError
from det_engine.cli import dispatch, run_main
from det_heads.checkpoints import CheckpointError

from apps.common.app import App
from apps.common.benchmark import benchmark
from apps.common.evaluate import evaluate
from apps.common.predict import predict
from apps.common.show_recipes import show_recipes
from apps.common.train import train


def main(app: App, args: list[str] | None = None) -> int:
    """Run a command of an app and return its exit status (see :func:`det_engine.cli.run_main`)."""
    commands = {
        name: _bound(command, app)
        for name, command in {
            "train": train,
            "eval": evaluate,
            "predict": predict,
            "benchmark": benchmark,
            "recipes": show_recipes,
        }.items()
    }
    arguments = sys.argv[1:] if args is None else args
    return run_main(lambda: dispatch(commands, arguments, f"apps/{app.name}"), (DataError, WeightsError, CheckpointError))


def _bound(command, app: App):  # noqa: ANN001, ANN202
    bound = partial(command, app)
    bound.__doc__ = command.__doc__
    return bound
