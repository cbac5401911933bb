"""Masks of many instances packed into a few arrays."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from det_coco._groups import offsets_of, take_groups
from det_coco._sharing import pack, unpack


@dataclass(frozen=True, kw_only=True, eq=False)
class Polygons:
    """Masks in compressed rows: instance -> polygons -> points, and instance -> runs.

    Attributes:
        instance_polygons: int64 `[N + 1]`; instance n owns polygons `[n]:[n + 1]`.
        polygon_points: int64 `[Q + 1]`; polygon q owns points `[q]:[q + 1]`.
        points: float64 `[P, 2]` x, y in original pixels; float32 would move some points
            across the fifths of pixels that rasterisation rounds to.
        instance_runs: int64 `[N + 1]`; instance n owns runs `[n]:[n + 1]`, none where its mask is polygons.
        runs: int32 `[R]` run lengths, column by column, zeros first.
    """

    instance_polygons: np.ndarray
    polygon_points: np.ndarray
    points: np.ndarray
    instance_runs: np.ndarray
    runs: np.ndarray

    @staticmethod
    def of_runs(runs: Sequence[np.ndarray]) -> "Polygons":
        """Masks of N instances as run lengths alone: integers `[R]` each, empty where an instance has none."""
        return Polygons(
            instance_polygons=np.zeros(len(runs) + 1, dtype=np.int64),
            polygon_points=np.zeros(1, dtype=np.int64),
            points=np.zeros((0, 2)),
            instance_runs=offsets_of(np.array([len(own) for own in runs], dtype=np.int64)),
            runs=np.concatenate([np.zeros(0, dtype=np.int32), *runs]).astype(np.int32),
        )

    def __getitem__(self, chosen: np.ndarray) -> "Polygons":
        """The masks of some instances, an integer array, in its order."""
        polygons, instance_polygons = take_groups(self.instance_polygons, chosen)
        points, polygon_points = take_groups(self.polygon_points, polygons)
        runs, instance_runs = take_groups(self.instance_runs, chosen)
        return Polygons(
            instance_polygons=instance_polygons,
            polygon_points=polygon_points,
            points=self.points[points],
            instance_runs=instance_runs,
            runs=self.runs[runs],
        )

    def with_points(self, points: np.ndarray) -> "Polygons":
        """The same polygons with other points: float64 `[P, 2]`."""
        return replace(self, points=points)

    def with_runs(self, runs: Sequence[np.ndarray]) -> "Polygons":
        """The same with other run lengths: N arrays, int32 `[R]` each, empty where an instance has none."""
        offsets = np.concatenate(([0], np.cumsum([len(own) for own in runs]))).astype(np.int64)
        return replace(self, instance_runs=offsets, runs=np.concatenate(runs).astype(np.int32))

    def __getstate__(self) -> dict[str, Any]:
        return pack(self.__dict__)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(unpack(state))
