"""The stored outputs of a reference implementation, and comparison with them. The format is described in README.md."""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(__file__).parent

NOISE_FACTOR = 10.0
RELATIVE = 1e-4
"""What counts as equal: ten times what the reference differs from itself by, or this times the size of the values
(their standard deviation), whichever is larger. We differ by about twice the noise, 2e-5 of the size."""

COORDINATE = 100.0
"""Size of a box coordinate, px."""


class Reference:
    """One file of parity vectors."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._file = np.load(FOLDER / f"{name}.npz")
        self.keys = frozenset(self._file.files)

    @functools.cache  # noqa: B019 - lives as long as the test session
    def __getitem__(self, key: str) -> np.ndarray:
        return self._file[key]

    @functools.cache  # noqa: B019
    def json(self, key: str) -> Any:
        """A JSON entry."""
        return json.loads(bytes(self._file[key]))

    def tensor(self, key: str) -> Tensor:
        """An array as a tensor."""
        return torch.from_numpy(np.array(self[key]))

    def pair(self, key: str) -> list[Tensor]:
        """The entries of both images."""
        return [self.tensor(f"{key}{image}") for image in range(2)]

    def below(self, prefix: str) -> list[str]:
        """What follows `prefix` in the keys, up to the next slash, in order."""
        return sorted({key.removeprefix(prefix).split("/")[0] for key in self.keys if key.startswith(prefix)})

    def noise(self, key: str) -> float:
        """Difference between two runs of the reference; 0 where it was not measured."""
        if "meta/noise_mkldnn_off" not in self.keys:
            return 0.0
        noise = self.json("meta/noise_mkldnn_off").get(key, 0.0)
        return 0.0 if isinstance(noise, str) else float(noise)

    def tolerance(self, key: str, size: float) -> float:
        """Largest admissible difference of values of the given size.

        Noise as large as the values themselves comes from rows that swapped places between the runs; our inputs are
        the stored ones in the stored order, so it is no noise of ours.
        """
        noise = self.noise(key)
        return max(NOISE_FACTOR * noise if noise < 0.1 * size else 0.0, RELATIVE * size)

    def assert_sampled(self, key: str, ours: Tensor) -> None:
        """`ours` is the tensor stored as `key`: same shape, same statistics, same samples.

        NaN stands for values that we do not have; then the statistics are not compared.
        """
        assert tuple(ours.shape) == tuple(self[f"{key}/shape"])
        flat = ours.detach().flatten().double()
        mean, std, low, high = (float(value) for value in self[f"{key}/stat"])
        expected = self.tensor(f"{key}/sample").double()
        tolerance = self.tolerance(f"{key}/sample", std)
        worst = (flat[:: int(self[f"{key}/step"])][: len(expected)] - expected).abs()
        known = ~worst.isnan()
        assert known.sum() > 0.9 * len(known)
        worst = worst[known].max().item()
        assert worst <= tolerance, f"{key}: samples differ by {worst:.3g}, admissible {tolerance:.3g}"
        if not known.all():
            return
        stat = torch.stack((flat.mean(), flat.std(correction=0), flat.min(), flat.max()))
        worst = (stat - torch.tensor([mean, std, low, high])).abs().max().item()
        assert worst <= tolerance, f"{key}: mean, std, min or max differ by {worst:.3g}, admissible {tolerance:.3g}"

    def assert_close(self, key: str, ours: Tensor, *, size: float | None = None) -> None:
        """`ours` is the array stored as `key`; `size` is what the tolerance is relative to (the standard deviation)."""
        expected = self.tensor(key).double()
        assert tuple(ours.shape) == tuple(expected.shape)
        tolerance = self.tolerance(key, expected.std(correction=0).item() if size is None else size)
        difference = (ours.detach().double() - expected).abs()
        worst = difference[~difference.isnan()].max().item()
        assert worst <= tolerance, f"{key}: differs by {worst:.3g}, admissible {tolerance:.3g}"


@functools.cache
def reference(name: str) -> Reference:
    """The file of that name, read once."""
    return Reference(name)


def matching(
    boxes: Tensor, other: Tensor, groups: Tensor | None = None, other_groups: Tensor | None = None, *, tolerance: float
) -> Tensor:
    """The row in `other` of each box, if both are the same set: `Tensor[N]` int64, a permutation.

    Args:
        boxes: `Tensor[N, 4]`
        other: `Tensor[N, 4]`
        groups: `Tensor[N]`; boxes of different groups (classes) are different.
        other_groups: `Tensor[N]`
        tolerance: Largest difference of a coordinate, px.

    Raises:
        AssertionError: Some box has no counterpart.
    """
    assert len(boxes) == len(other), f"{len(boxes)} boxes instead of {len(other)}"
    distance = (boxes[:, None].double() - other.double()).abs().amax(-1)
    if groups is not None and other_groups is not None:
        distance = torch.where(groups[:, None] == other_groups, distance, torch.inf)
    lost = (distance.min(1).values > tolerance).nonzero().flatten()
    assert len(lost) == 0, f"{len(lost)} of {len(boxes)} boxes have no counterpart within {tolerance:.3g} px: {lost}"
    # One after another, the least ambiguous first, so that near duplicates do not take each other's counterpart.
    row = torch.zeros(len(boxes), dtype=torch.int64)
    for i in (distance <= tolerance).sum(1).argsort(stable=True).tolist():
        nearest = int(distance[i].argmin())
        assert distance[i, nearest] <= tolerance, f"box {i} has no counterpart left"
        row[i] = nearest
        distance[:, nearest] = torch.inf
    return row
