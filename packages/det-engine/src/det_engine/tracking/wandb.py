"""A run in Weights & Biases."""

import os
import secrets
from collections.abc import Mapping
from typing import Any

import numpy as np
import wandb

from det_engine.errors import EngineError
from det_engine.run import RunDirectory


class Wandb:
    """A run of Weights & Biases; see `det_engine.tracking.Tracker`.

    Its own environment variables say where: `WANDB_PROJECT` (by default the name of the folder of the run's directory),
    `WANDB_ENTITY`, `WANDB_BASE_URL`, and `WANDB_MODE=offline` for files alone, which `wandb sync` sends later.

    Args:
        run: its directory, in which files for `wandb sync` lie.
        config: plain values.
        known: what it is called, if it goes on.

    Raises:
        EngineError: nobody has logged in, and it is not offline.
    """

    def __init__(self, run: RunDirectory, config: Any, known: str | None) -> None:
        offline = os.environ.get("WANDB_MODE", "online") != "online"
        # It would ask for a key in the middle of a training.
        if not offline and not wandb.login(prompt=False):
            raise EngineError("nobody has logged in; run `wandb login`, or set WANDB_MODE=offline")
        path = run.path.absolute()
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", path.parent.name),
            name=path.name,
            id=known or secrets.token_hex(4),
            resume="allow",
            dir=str(path),
            config=config if isinstance(config, dict) else {},
            settings=wandb.Settings(silent=True, console="off"),
        )
        self.identifier = self._run.id
        # Its own step only rises; ours may come again.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log numbers."""
        self._run.log({"step": step, **values})

    def pictures(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Log pictures, uint8 `[H, W, 3]` RGB."""
        self._run.log({"step": step, **{name: wandb.Image(picture) for name, picture in pictures.items()}})

    def finish(self, status: str, results: Mapping[str, float]) -> None:
        """Log the results in the summary, and close the run."""
        self._run.summary.update({"status": status, **results})
        self._run.finish(exit_code=0 if status == "finished" else 1)
