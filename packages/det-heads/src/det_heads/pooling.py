"""RoIAlign over a feature pyramid."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from det_heads._require import require
from det_heads.config import PoolConfig
from det_ops import fpn_levels, multilevel_roi_align

__all__ = ["RoIPool"]


@dataclass(frozen=True, slots=True)
class RoIPool:
    """Features of boxes, each from the pyramid level that fits its size (FPN, equation 1).

    Attributes:
        config: RoIAlign conventions.
        strides: Pixels per cell of each level, finest first.
        offset: Width convention, see :class:`~det_heads.BoxCoder`.
    """

    config: PoolConfig
    strides: tuple[int, ...]
    offset: float = 0.0

    def __post_init__(self) -> None:
        require(self.config.levels <= len(self.strides), "levels", f"at most {len(self.strides)}", self.config.levels)

    def __call__(
        self,
        features: Sequence[Tensor],
        boxes: Tensor,
        image_index: Tensor,
        valid: Tensor,
        memory_format: torch.memory_format = torch.channels_last,
    ) -> Tensor:
        """Pool boxes of several images.

        Args:
            features: Per level [B, C, H, W], finest first; only the first ``config.levels`` are read.
            boxes: [R, 4] in image pixels.
            image_index: [R] int64, the image each box belongs to.
            valid: [R] bool; the others give zeros and cost nothing.
            memory_format: Of the result, see :func:`det_ops.multilevel_roi_align`.

        Returns:
            [R, C, P, P].

        Raises:
            ValueError: The pyramid has fewer levels than are pooled from.
        """
        config = self.config
        count = config.levels
        if len(features) < count:
            raise ValueError(f"features must have at least {count} levels to pool from, got {len(features)}")
        if config.finest_size is None:
            scale: dict[str, Any] = {"min_level": self.strides[0].bit_length() - 1}
        else:
            scale = {"min_level": 0, "canonical_level": 0, "canonical_size": config.finest_size}
        levels = fpn_levels(
            boxes,
            num_levels=count,
            **scale,
            epsilon=config.level_epsilon,
            epsilon_inside_log=config.level_epsilon_inside_log,
            offset=self.offset,
        )  # [R]
        return multilevel_roi_align(
            list(features[:count]),
            boxes,
            image_index,
            torch.where(valid, levels, -1),
            output_size=config.size,
            scales=[1.0 / stride for stride in self.strides[:count]],
            sampling_ratio=config.sampling_ratio,
            aligned=config.aligned,
            memory_format=memory_format,
        )
