"""What a forward pass must know where it sees a part of a batch: in one of several processes, or in turns.

Two things tie the parts together. A loss that is a mean over sampled boxes is divided by the number of them in the
whole batch, not in the part. And the random numbers that choose the samples are those of the whole batch: each part
draws all, from the same seed, and takes its rows.
"""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["WHOLE", "BatchPart"]


class BatchPart:
    """Part `index` of the `count` equally large parts of a batch; by default all of it.

    Args:
        index: From 0.
        count: Number of parts.
        mean: Gives the mean over all parts of a number (scalar tensor) that each part has counted.
        draw: Makes random numbers in [0, 1) of a shape, on a device; another one than `torch.rand` samples otherwise.
    """

    def __init__(
        self,
        index: int = 0,
        count: int = 1,
        mean: Callable[[Tensor], Tensor] | None = None,
        draw: Callable[[tuple[int, int], torch.device], Tensor] | None = None,
    ) -> None:
        self.index, self.count, self._mean, self._draw = index, count, mean, draw

    def mean(self, number: Tensor) -> Tensor:
        """The mean over all parts of a number (scalar) that each has counted; of the whole batch the number itself."""
        return number if self._mean is None else self._mean(number)

    def at_least_one(self, mean: Tensor) -> Tensor:
        """Raise a :meth:`mean`, a scalar, to at least that of one thing in all parts together."""
        return mean.clamp(min=1 if self.count == 1 else 1 / self.count)

    def denominator(self, number: Tensor) -> Tensor:
        """Return what a sum over `number` things of this part is divided by so that the parts' mean is that of all.

        Args:
            number: A scalar, what this part counted.

        Returns:
            A scalar; of the whole batch `number` itself, but at least 1.
        """
        return self.at_least_one(self.mean(number))

    def random_keys(self, rows: int, columns: int, device: torch.device) -> Tensor:
        """Draw numbers that decide which candidates are sampled, the largest win.

        Args:
            rows: Images of this part.
            columns: Candidates of an image.
            device: Where they are needed.

        Returns:
            [B, N], that is [rows, columns], in [0, 1): this part's rows of what is drawn for all parts together.
        """
        shape = (rows * self.count, columns)
        keys = torch.rand(shape, device=device) if self._draw is None else self._draw(shape, device)
        return keys[self.index * rows : (self.index + 1) * rows]


WHOLE = BatchPart()
"""All of a batch."""
