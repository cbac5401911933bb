"""What a forward pass must know where it sees a part of a step's images: in one of several processes, or in turns.

Two things tie the parts together. A loss that is a mean over sampled boxes is divided by the number of them in the
whole batch, not in the part. And the random numbers that choose the samples are those of the whole batch: each part
draws all, from the same seed, and takes its rows.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import NamedTuple

from torch import Tensor

__all__ = ["as_part", "at_least_one", "mean_over_parts", "normalizer", "rows_of_batch"]


class _Part(NamedTuple):
    index: int
    count: int
    total: Callable[[Tensor], Tensor]


_WHOLE = _Part(0, 1, lambda number: number)
_PART: ContextVar[_Part] = ContextVar("part", default=_WHOLE)


@contextlib.contextmanager
def as_part(index: int, count: int, total: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """A block in which models see part `index` of the `count` equally large parts of a step's images.

    Args:
        index: From 0.
        count: Number of parts.
        total: The mean over all parts of a number (scalar tensor) that each part has counted.
    """
    token = _PART.set(_Part(index, count, total))
    try:
        yield
    finally:
        _PART.reset(token)


def mean_over_parts(number: Tensor) -> Tensor:
    """The mean over all parts of a number (scalar) that each has counted; without parts the number itself."""
    return _PART.get().total(number)


def at_least_one(mean: Tensor) -> Tensor:
    """A :func:`mean_over_parts`, but not less than that of one thing in all parts together."""
    count = _PART.get().count
    return mean.clamp(min=1 if count == 1 else 1 / count)


def normalizer(number: Tensor) -> Tensor:
    """What a sum over `number` things of this part is divided by so that the mean over the parts is that of all things.

    Args:
        number: Scalar, what this part counted.

    Returns:
        Scalar; without parts `number` itself, but at least 1.
    """
    return at_least_one(mean_over_parts(number))


def rows_of_batch(draw: Callable[[tuple[int, int]], Tensor], shape: tuple[int, int]) -> Tensor:
    """This part's rows [B, N] of what `draw` gives for all parts together."""
    part = _PART.get()
    rows = shape[0]
    return draw((rows * part.count, shape[1]))[part.index * rows : (part.index + 1) * rows]
