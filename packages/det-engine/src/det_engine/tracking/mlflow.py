"""A run in MLflow."""

import os
import re
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from det_engine.plain import named_values
from det_engine.run import RunDirectory

_STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
_AT_ONCE, _LONGEST = 100, 6000
"""Parameters of a request, and characters of a value, that MLflow takes."""


class MLflow:
    """A run of MLflow; see `det_engine.tracking.Tracker`.

    Its own environment variables say where: `MLFLOW_TRACKING_URI`, and `MLFLOW_EXPERIMENT_NAME` (by default the name of
    the folder of the run's directory).

    Args:
        run: its directory.
        config: plain values.
        known: what it is called, if it goes on.

    Raises:
        mlflow.exceptions.MlflowException: the server does not answer, or does not know the run.
    """

    def __init__(self, run: RunDirectory, config: Any, known: str | None) -> None:
        self._client = MlflowClient()
        self.identifier = known or self._create(run)
        self._client.update_run(self.identifier, status="RUNNING")
        if isinstance(config, Mapping):
            self._client.log_dict(self.identifier, dict(config), "config.json")
        if known is None:  # parameters of a run cannot change
            params = [Param(_key(name), str(value)[:_LONGEST]) for name, value in named_values(config).items()]
            for start in range(0, len(params), _AT_ONCE):
                self._client.log_batch(self.identifier, params=params[start : start + _AT_ONCE])

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log numbers."""
        now = int(time.time() * 1000)
        self._client.log_batch(self.identifier, [Metric(_key(k), float(v), now, step) for k, v in values.items()])

    def pictures(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Log pictures, uint8 `[H, W, 3]` RGB."""
        for name, picture in pictures.items():
            self._client.log_image(self.identifier, picture, key=_key(name), step=step, synchronous=True)

    def finish(self, status: str, results: Mapping[str, float]) -> None:
        """Log the results, and close the run."""
        self._client.log_dict(self.identifier, dict(results), "results.json")
        now = int(time.time() * 1000)
        best = [Metric(_key(k), float(v), now, 0) for k, v in results.items() if k.startswith("best/")]
        self._client.log_batch(self.identifier, best)
        self._client.set_terminated(self.identifier, _STATUS[status])

    def _create(self, run: RunDirectory) -> str:
        path = run.path.absolute()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", path.parent.name)
        found = self._client.get_experiment_by_name(name)
        experiment = self._client.create_experiment(name) if found is None else found.experiment_id
        return self._client.create_run(experiment, run_name=path.name).info.run_id


def _key(name: str) -> str:
    """A name with the characters that MLflow allows."""
    return re.sub(r"[^\w\-. :/]", "_", name)
