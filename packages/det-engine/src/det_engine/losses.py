"""Loss terms of the steps since the last log line, kept on the device until they are read together."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from det_engine.errors import EngineError


class NonFiniteLossError(Exception):
    """The first step whose loss is not finite.

    Attributes:
        step: number of the step, the first is 1.
        terms: every loss term of that step.
        image_ids: ids of that step's images, if the batch named them.
    """

    def __init__(self, step: int, terms: dict[str, float], image_ids: list[int] | None) -> None:
        self.step = step
        self.terms = terms
        self.image_ids = image_ids
        bad = ", ".join(f"{name} = {value}" for name, value in terms.items() if not math.isfinite(value))
        good = ", ".join(f"{name} = {value:.4g}" for name, value in terms.items() if math.isfinite(value))
        images = "" if image_ids is None else f" Images of that step: {', '.join(map(str, image_ids))}."
        super().__init__(f"The loss is not finite at step {step}: {bad}{f' ({good})' if good else ''}.{images}")


class LossRecord:
    """Collects loss terms without reading them; `take` reads all steps with one copy from the device.

    Args:
        extras: further values of a step that are no loss, such as the gradient norm; they may be non-finite.
    """

    def __init__(self, extras: Sequence[str] = ()) -> None:
        self._extras = tuple(extras)
        self._names: tuple[str, ...] | None = None
        self._on_device: list[Tensor] = []
        self._image_ids: list[Tensor | None] = []
        self._read: list[list[float]] = []
        self._first_step = 1

    def add(self, losses: Mapping[str, Tensor], extras: Sequence[Tensor] = (), image_ids: Tensor | None = None) -> None:
        """Remember one step.

        Args:
            losses: scalar tensors, the same names in every step.
            extras: scalar tensors, one per name of `extras`.
            image_ids: int64 `[B]`; read only when something went wrong.

        Raises:
            EngineError: the names differ from those of the steps before.
        """
        if self._names is None:
            self._names = tuple(losses)
        elif self._names != tuple(losses):
            raise EngineError(f"The model returned the losses {list(losses)} after {list(self._names)}.")
        values = [value.detach().float() for value in (*losses.values(), *extras)]
        self._on_device.append(torch.stack(values))
        self._image_ids.append(image_ids)

    def check(self) -> None:
        """Read what has not been read.

        Raises:
            NonFiniteLossError: a loss term is not finite.
        """
        if not self._on_device or self._names is None:
            return
        rows = torch.stack(self._on_device).tolist()
        ids = self._image_ids
        self._on_device, self._image_ids = [], []
        for row, image_ids in zip(rows, ids, strict=True):
            terms = dict(zip(self._names, row, strict=False))
            if not all(map(math.isfinite, terms.values())):
                step = self._first_step + len(self._read)
                raise NonFiniteLossError(step, terms, None if image_ids is None else image_ids.tolist())
            self._read.append(row)

    def take(self) -> dict[str, float]:
        """Mean of every term over the steps since the last call, their sum as `loss` first; then start anew.

        Raises:
            NonFiniteLossError: as `check`.
        """
        self.check()
        if not self._read or self._names is None:
            return {}
        columns = list(zip(*self._read, strict=True))
        count = len(self._read)
        terms = {name: math.fsum(column) / count for name, column in zip(self._names, columns, strict=False)}
        means = {"loss": math.fsum(terms.values()), **terms}
        for name, column in zip(self._extras, columns[len(self._names) :], strict=True):
            # A gradient that overflowed in half precision was skipped by the scaler.
            finite = [value for value in column if math.isfinite(value)]
            means[name] = math.fsum(finite) / len(finite) if finite else math.nan
        self._first_step += count
        self._read = []
        return means

    def state_dict(self) -> dict[str, Any]:
        """What the next `take` needs after a resume; call `check` first."""
        names = [*(self._names or ()), *self._extras]
        return {"names": names, "rows": self._read, "first_step": self._first_step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""
        names, rows = tuple(state["names"]), state["rows"]
        losses = len(names) - len(self._extras)
        if losses > 0 and names[losses:] == self._extras:
            self._names = names[:losses]
            self._read = [list(row) for row in rows]
            self._first_step = state["first_step"]
        else:
            # Other values are recorded now than before: the interval starts anew.
            self._first_step = state["first_step"] + len(rows)
