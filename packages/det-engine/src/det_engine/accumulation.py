"""Losses and gradients of a step's images, which pass the network at once or as micro-batches, one after the other."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from det_engine import distributed
from det_engine.errors import EngineError
from det_engine.guard import BatchStatistics
from det_engine.model import Batch, as_trainable, part_arguments, unwrapped
from det_engine.precision import Precision
from det_engine.random_state import mixed_seed
from det_engine.settings import TrainSettings


class Accumulation:
    """Adds up the losses and gradients of this process's micro-batches (`TrainSettings.accumulate`).

    They are those of one pass over all images of all processes: gradients are means over micro-batches, which hold
    equally many images, and random numbers are a function of seed and step. What a model does for it is said in
    `TrainableModel`.

    Args:
        network: the model, or what wraps it; maps a batch (and its part) to losses.
        precision: number format.
        settings: number of micro-batches, seed, capture.
        statistics: of batch normalisation; brought back after a pass that only counts.
        record: what passes are wrapped in to be captured.

    Attributes:
        backward: `backward(images, means, number)` adds the losses and gradients of a micro-batch.
        row: float32 `[L]`, each of the L losses so far; None before the first pass.
        names: of the losses; None before the first pass.
    """

    def __init__(
        self,
        network: nn.Module,
        precision: Precision,
        settings: TrainSettings,
        statistics: BatchStatistics,
        record: Callable[[Any], Any],
    ) -> None:
        self.row: Tensor | None = None
        self.names: tuple[str, ...] | None = None
        self._network, self._model = network, unwrapped(network)
        self._precision, self._settings, self._device = precision, settings, precision.device
        self._statistics = statistics
        self._knows_parts = as_trainable(self._model) is not None
        self._count = record(self._counting_pass)
        self.backward = record(self._pass)

    def micro_batches(self, batch: Batch, step: int) -> list[tuple[dict[str, Tensor], Tensor]]:
        """Cut this process's images of a step.

        Returns:
            The micro-batches on the device, each with the means `[n]` that its n normalised losses are divided by;
            `[0]` where they are found on the way.

        Raises:
            EngineError: the images cannot be cut into equal micro-batches.
        """
        cut = self._cut(batch)
        return list(zip(cut, self._means(cut, step), strict=True))

    def _cut(self, batch: Batch) -> list[dict[str, Tensor]]:
        count = self._settings.accumulate
        on_device = {name: value.to(self._device, non_blocking=True) for name, value in batch.items()}
        if count == 1:
            return [on_device]
        sizes = {len(value) for value in on_device.values()}
        if len(sizes) != 1 or max(sizes) % count:
            raise EngineError(
                f"A batch of {max(sizes)} images in a process cannot be cut into {count} equal micro-batches; choose "
                "another number to accumulate."
            )
        pieces = {name: value.tensor_split(count) for name, value in on_device.items()}
        return [{name: piece[number] for name, piece in pieces.items()} for number in range(count)]

    def place(self, number: int = 0) -> tuple[int, int]:
        """Index of this process's micro-batch `number` among all of a step, and their count."""
        own = self._settings.accumulate
        return distributed.rank() * own + number, distributed.world_size() * own

    def seed(self, step: int, number: int) -> int:
        """Seed of the random numbers of this process's micro-batch `number` of a step."""
        # A model that knows of parts takes its rows of the same numbers; others must not repeat themselves.
        own = 0 if self._knows_parts else self.place(number)[0]
        return mixed_seed(self._settings.seed, step, own)

    def _means(self, cut: list[dict[str, Tensor]], step: int) -> list[Tensor]:
        """What losses are divided by, where that is not known before all micro-batches were seen.

        It takes a pass of its own, without gradients, which only steps of models with such losses make, and of these
        only accumulated ones, and captured ones in several processes: processes record and replay graphs at different
        steps, as batches of new shapes come to them, and would wait for each other for ever if they met in a graph.
        """
        empty = torch.zeros(0, device=self._device)
        met_in_graph = self._settings.capture and distributed.world_size() > 1
        if not self._knows_parts or (len(cut) == 1 and not met_in_graph):
            return [empty] * len(cut)
        counted = []
        for number, images in enumerate(cut):
            torch.manual_seed(self.seed(step, number))
            counted.append(self._count(images, number).clone())
        self._statistics.restore()
        means = torch.stack(counted).mean(0)
        return [distributed.all_reduce_mean(means) if len(means) else empty] * len(cut)

    def _counting_pass(self, images: Batch, number: int) -> Tensor:
        """What this process's micro-batch `number` counts, float32 `[n]`."""
        seen: list[Tensor] = []
        arguments = part_arguments(self._model, self.place(number), functools.partial(_note, seen))
        with torch.no_grad(), self._precision.autocast():
            self._check(self._model(images, *arguments))
        return torch.stack(seen) if seen else torch.zeros(0, device=self._device)

    def _pass(self, images: Batch, means: Tensor, number: int) -> None:
        """Forward and backward of this process's micro-batch `number`."""
        remaining = iter(means)

        def mean(count: Tensor) -> Tensor:
            if len(means):
                return next(remaining)
            return distributed.all_reduce_mean(count.detach().float().clone())

        with self._precision.autocast():
            losses = self._network(images, *part_arguments(self._model, self.place(number), mean))
        self._check(losses)
        terms = torch.stack([value.float() for value in losses.values()]) / self._settings.accumulate
        if not terms.requires_grad:
            raise EngineError(
                f"None of the losses ({', '.join(losses)}) depends on a parameter that is trained: they were detached, "
                "or computed without gradients."
            )
        self._precision.backward(terms.sum())
        row = terms.detach()
        if self.row is None:
            self.row = torch.zeros_like(row)
        self.row += row

    def _check(self, losses: dict[str, Tensor]) -> None:
        _check_form(losses)
        if self.names is None:
            self.names = tuple(losses)
        elif self.names != tuple(losses):
            raise EngineError(f"The model returned the losses {list(losses)} after {list(self.names)}.")

    @contextlib.contextmanager
    def warm_up(self) -> Iterator[None]:
        """A block whose passes leave no trace in the losses."""
        before = None if self.row is None else self.row.clone()
        try:
            yield
        finally:
            if self.row is not None:
                self.row.zero_() if before is None else self.row.copy_(before)


def _note(seen: list[Tensor], count: Tensor) -> Tensor:
    seen.append(count.detach().float().clone())
    return count


def _check_form(losses: object) -> None:
    if not isinstance(losses, Mapping) or not losses:
        raise EngineError(f"In training the model must return a dict of scalar losses, got {type(losses).__name__}.")
    for name, value in losses.items():
        if not isinstance(value, Tensor) or value.ndim:
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise EngineError(f"Loss {name} must be a scalar tensor, got {got}.")
