"""The batches of a training: from whichever step it is at, of whatever the caller gave, and checked as they come."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import Any

import torch
from torch import Tensor

from det_engine import distributed
from det_engine.errors import EngineError
from det_engine.model import Batch
from det_engine.random_state import fork_rng, mixed_seed
from det_engine.state import TrainingState

Batches = Callable[[int], Iterator[Batch]] | Iterable[Batch]


class Data:
    """The batches of a training.

    Args:
        batches: see `train`.
        state: the training, whose step decides on the next batch.
        steps: how many there are to be.

    Raises:
        EngineError: `batches` is neither a function nor something that can be iterated over again and again.
    """

    def __init__(self, batches: Batches, state: TrainingState, steps: int) -> None:
        self._batches: Callable[[int], Iterator[Batch]] = (
            batches if callable(batches) else _Again(batches, state.settings.seed).from_step
        )
        self._state, self._steps = state, steps
        self._stream: Iterator[Batch] | None = None

    def next(self) -> Batch:
        """The batch of the state's step.

        Raises:
            EngineError: there are fewer batches than steps, or it is no batch.
        """
        state = self._state
        # Data may draw random numbers too; what they draw depends on nothing but the step.
        with fork_rng(seed=_seed(state.settings.seed, state.step)):
            if self._stream is None:
                self._stream = _iterator(self._batches(state.step))
            try:
                return _checked(next(self._stream))
            except StopIteration:
                raise EngineError(
                    f"The data ended at step {state.step} of {self._steps}; batches() must yield one per step."
                ) from None

    def close(self) -> None:
        """End the iteration; the next batch begins another one."""
        close = getattr(self._stream, "close", None)
        self._stream = None
        if close is not None:
            close()


class _Again:
    """A list or a loader of batches, gone through again and again: epoch after epoch, the same ones for a step."""

    def __init__(self, batches: Any, seed: int) -> None:
        if not isinstance(batches, Iterable) or isinstance(batches, Iterator | Mapping) or not _is_sized(batches):
            raise EngineError(
                "batches must be a function of the step that gives an iterator, or something with a length that can be "
                f"iterated over again and again, such as a list or a DataLoader; got {type(batches).__name__}."
            )
        samplers = (getattr(batches, name, None) for name in ("sampler", "batch_sampler"))
        self._sharded = next((sampler for sampler in samplers if hasattr(sampler, "set_epoch")), None)
        if distributed.world_size() > 1 and self._sharded is None:
            raise EngineError(
                "In several processes batches must be a function of the step, or a DataLoader with a sampler that "
                "gives each process its share, such as a DistributedSampler."
            )
        self._batches, self._seed, self._length = batches, seed, len(batches)  # type: ignore[arg-type]

    def from_step(self, step: int) -> Iterator[Batch]:
        """The batches of `step`, `step` + 1, ..."""
        if not self._length:
            return
        for epoch in itertools.count(step // self._length):
            # The order is drawn where the iteration begins, and with the seed of its epoch it is the same after a
            # resume. What a batch draws follows from its step, as everywhere.
            torch.default_generator.manual_seed(mixed_seed(self._seed, epoch))
            if self._sharded is not None:
                self._sharded.set_epoch(epoch)
            stream = iter(self._batches)
            skipped = step % self._length if epoch == step // self._length else 0
            for _ in itertools.islice(stream, skipped):
                pass
            if skipped:
                torch.default_generator.manual_seed(_seed(self._seed, step))
            yield from stream


def _iterator(given: Any) -> Iterator[Batch]:
    if not isinstance(given, Iterable):
        raise EngineError(f"batches(step) must give an iterator over batches, got {type(given).__name__}.")
    return iter(given)


def _is_sized(batches: object) -> bool:
    try:
        return isinstance(batches, Sized) and len(batches) >= 0
    except TypeError:  # a DataLoader of an IterableDataset
        return False


def _seed(seed: int, step: int) -> int:
    return mixed_seed(seed, step, distributed.rank())


def _checked(batch: Any) -> Batch:
    if not isinstance(batch, Mapping):
        raise EngineError(
            f"A batch must be a dict of tensors by name, such as {{'images': ...}}, got {type(batch).__name__}; of a "
            "DataLoader that is what its collate_fn or the samples of its data set decide on."
        )
    for name, value in batch.items():
        if not isinstance(value, Tensor):
            raise EngineError(f"A batch must hold tensors alone, but {name!r} is {type(value).__name__}.")
    return batch
