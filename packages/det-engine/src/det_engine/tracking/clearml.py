"""A run in ClearML."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from clearml import Task

from det_engine.plain import named_values
from det_engine.run import RunDirectory


class ClearML:
    """A task of ClearML; see `det_engine.tracking.Tracker`.

    Its own configuration says where: `clearml-init`, `CLEARML_API_HOST` and others, `CLEARML_PROJECT` (by default the
    name of the folder of the run's directory), and `CLEARML_OFFLINE_MODE=1` for files alone.

    Args:
        run: its directory.
        config: plain values.
        known: what it is called, if it goes on.

    Raises:
        ValueError: there is no server, or it does not know the task.
    """

    def __init__(self, run: RunDirectory, config: Any, known: str | None) -> None:
        path = run.path.absolute()
        self._task = Task.init(
            project_name=os.environ.get("CLEARML_PROJECT", path.parent.name),
            task_name=path.name,
            reuse_last_task_id=known or False,
            continue_last_task=0 if known else False,  # no offset is added to the steps
            auto_connect_arg_parser=False,
            auto_connect_frameworks=False,
            auto_connect_streams=False,
            auto_resource_monitoring=False,
        )
        self.identifier = self._task.id
        self._logger = self._task.get_logger()
        self._task.set_parameters({name: str(value) for name, value in named_values(config).items()})

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log numbers: the part of a name before its first slash is the plot."""
        for name, value in values.items():
            title, _, series = name.partition("/")
            self._logger.report_scalar(title, series or title, float(value), step)

    def pictures(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Log pictures, uint8 `[H, W, 3]` RGB."""
        for name, picture in pictures.items():
            title, _, series = name.partition("/")
            self._logger.report_image(title, series or title, step, image=picture)

    def finish(self, status: str, results: Mapping[str, float]) -> None:
        """Log the results, and close the task."""
        for name, value in results.items():
            self._logger.report_single_value(name, float(value))
        self._task.flush(wait_for_uploads=True)
        if status == "failed":
            self._task.mark_failed(force=True)
        elif status == "stopped":
            self._task.mark_stopped(force=True)
        self._task.close()
