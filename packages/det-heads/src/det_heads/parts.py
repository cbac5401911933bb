"""What a forward pass must know where it sees a part of a batch: in one of several processes, or in turns.

Two things tie the parts together. A loss that is a mean over sampled boxes is divided by the number of them in the
whole batch, not in the part. And the random numbers that choose the samples are those of the whole batch: each part
draws all, from the same seed, and takes its rows.
"""

from collections.abc import Callable

from torch import Tensor

__all__ = ["WHOLE", "BatchPart"]


class BatchPart:
    """Part `index` of the `count` equally large parts of a batch; by default all of it.

    Args:
        index: From 0.
        count: Number of parts.
        mean: Gives the mean over all parts of a number (scalar tensor) that each part has counted.
    """

    def __init__(self, index: int = 0, count: int = 1, mean: Callable[[Tensor], Tensor] | None = None) -> None:
        self.index, self.count, self._mean = index, count, mean

    def mean(self, number: Tensor) -> Tensor:
        """The mean over all parts of a number (scalar) that each has counted; of the whole batch the number itself."""
        return number if self._mean is None else self._mean(number)

    def at_least_one(self, mean: Tensor) -> Tensor:
        """A :meth:`mean`, but not less than that of one thing in all parts together."""
        return mean.clamp(min=1 if self.count == 1 else 1 / self.count)

    def normalizer(self, number: Tensor) -> Tensor:
        """What a sum over `number` things of this part is divided by so that the parts' mean is that of all things.

        Args:
            number: Scalar, what this part counted.

        Returns:
            Scalar; of the whole batch `number` itself, but at least 1.
        """
        return self.at_least_one(self.mean(number))

    def rows(self, draw: Callable[[tuple[int, int]], Tensor], shape: tuple[int, int]) -> Tensor:
        """This part's rows [B, N], of shape `shape`, of what `draw` gives for all parts together."""
        rows = shape[0]
        return draw((rows * self.count, shape[1]))[self.index * rows : (self.index + 1) * rows]


WHOLE = BatchPart()
"""All of a batch."""
