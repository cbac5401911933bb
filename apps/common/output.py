"""Where a command writes: a run, or a folder named after the time."""

from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from apps.common.app import App
from det_engine import EngineError, RunDirectory, describe_environment, distributed

PACKAGES = ("det-ops", "det-backbones", "det-heads", "det-models", "det-coco", "pycocotools")
"""Distributions whose versions every run records."""


def new_run(path: Path, config: Any, device: torch.device, *, replace: bool = False) -> RunDirectory:
    """The directory of a new run; rank 0 makes it, decides on its name, and is the one who writes there."""
    path = distributed.broadcast_object(path)
    run = RunDirectory(path)
    if distributed.is_main():
        environment = describe_environment(device, PACKAGES)
        run = RunDirectory.create(path, config=config, environment=environment, replace=replace)
    distributed.broadcast_object(None)
    return run


def default_output(app: App, what: str) -> Path:
    """A new folder under runs/, named after the app, the recipe or command, and the time; rank 0 makes it.

    Raises:
        EngineError: it cannot be made.
    """
    first = Path("runs") / app.name / f"{what}-{datetime.now():%Y%m%d-%H%M%S}"
    names = (first, *(first.with_name(f"{first.name}-{number}") for number in range(2, 1000)))
    return next(path for path in names if not distributed.is_main() or _is_made(path))


def _is_made(path: Path) -> bool:
    """Whether a folder was made, which it is not where another process was faster."""
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        return False
    except OSError as error:
        raise EngineError(f"Cannot make the output directory {path}: {error.strerror or error}.") from error
    return True
