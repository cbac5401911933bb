"""Values of the steps since the last log line, kept on the device until they are read together."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

_MOST_OVERFLOWS = 50


class BrokenStepError(Exception):
    """The first step that changed nothing because its loss or its gradients were out of bounds.

    Attributes:
        steps_back: how many of the steps that were added came from it on, itself included.
        terms: every loss term of that step.
        grad_norm: norm of its gradients.
    """

    def __init__(self, steps_back: int, terms: dict[str, float], grad_norm: float) -> None:
        self.steps_back = steps_back
        self.terms = terms
        self.grad_norm = grad_norm
        super().__init__(f"a step was broken {steps_back} steps ago")


class LossRecord:
    """Collects the values of steps without reading them; `take` reads all steps with one copy from the device."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._on_device: list[Tensor] = []
        self._read: list[list[float]] = []
        self._overflows = 0

    def add(self, names: Sequence[str], values: Tensor) -> None:
        """Remember one step.

        Args:
            names: the loss terms, then `grad_norm` and `blocked`.
            values: float32 `[N]`, one for each name.
        """
        self._names = tuple(names)
        self._on_device.append(values)

    def check(self) -> None:
        """Read what has not been read.

        Raises:
            BrokenStepError: a step was blocked, or gradients overflowed in many steps in a row, none of which
                changed anything; that step and all later ones are forgotten.
        """
        if not self._on_device:
            return
        rows = torch.stack(self._on_device).tolist()
        self._on_device = []
        for number, row in enumerate(rows):
            *terms, norm, blocked = row
            self._overflows = 0 if math.isfinite(norm) else self._overflows + 1
            if blocked or self._overflows == _MOST_OVERFLOWS:
                self._overflows = 0
                raise BrokenStepError(len(rows) - number, dict(zip(self._names, terms, strict=False)), norm)
            self._read.append([*terms, norm])

    def take(self) -> dict[str, float]:
        """Mean of every term over the steps since the last call, their sum as `loss` first; then start anew.

        Raises:
            BrokenStepError: as `check`.
        """
        self.check()
        if not self._read:
            return {}
        columns = list(zip(*self._read, strict=True))
        count = len(self._read)
        terms = {name: math.fsum(column) / count for name, column in zip(self._names, columns[:-1], strict=False)}
        # A gradient that overflowed in half precision was skipped by the scaler.
        norms = [value for value in columns[-1] if math.isfinite(value)]
        means = {"loss": math.fsum(terms.values()), **terms}
        means["grad_norm"] = math.fsum(norms) / len(norms) if norms else math.nan
        self._read = []
        return means

    def state_dict(self) -> dict[str, Any]:
        """What the next `take` needs after a resume; call `check` first."""
        return {"names": list(self._names), "rows": self._read, "overflows": self._overflows}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self._names, self._on_device = tuple(state["names"]), []
        self._read = [list(row) for row in state["rows"]]
        self._overflows = state.get("overflows", 0)
