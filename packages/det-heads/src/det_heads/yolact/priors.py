"""Prior boxes of YOLACT."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from det_heads.yolact.config import PriorConfig

__all__ = ["Priors"]


class Priors(nn.Module):
    """The prior boxes of a pyramid, made once per shape and kept on the device.

    Args:
        config: Their sizes and ratios.
    """

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.config = config
        self._made: dict[tuple, Tensor] = {}

    def forward(self, shapes: Sequence[tuple[int, int]], image_shape: tuple[int, int], device: torch.device) -> Tensor:
        """Boxes centred on cells that divide the image evenly (`yolact.py`, `make_priors`).

        All arithmetic is the original's, rounding included: an object inside of several priors of one size has its best
        prior by rounding alone.

        Args:
            shapes: (height, width) of each level.
            image_shape: (height, width) of the input.
            device: Where they are needed.

        Returns:
            [N, 4] float32 x1, y1, x2, y2 as fractions of the image: levels, rows, columns, sizes, ratios.

        Raises:
            ValueError: The configuration is for another number of levels.
        """
        if len(shapes) != len(self.config.sizes):
            raise ValueError(f"priors are configured for {len(self.config.sizes)} levels, got {len(shapes)}")
        key = (tuple(shapes), image_shape, device)
        if key not in self._made:
            levels = [_level(*pair, image_shape, self.config) for pair in zip(shapes, self.config.sizes, strict=True)]
            centres, sides = torch.cat(levels).float().split(2, -1)
            self._made[key] = torch.cat((centres - sides / 2, centres + sides / 2), -1).to(device)
        return self._made[key]


def _level(
    shape: tuple[int, int], sizes: tuple[float, ...], image_shape: tuple[int, int], config: PriorConfig
) -> Tensor:
    """[rows * columns * per cell, 4] float64: centre x, y, width, height."""
    (rows, columns), (height, width) = shape, image_shape
    y = (torch.arange(rows, dtype=torch.float64) + 0.5) / rows
    x = (torch.arange(columns, dtype=torch.float64) + 0.5) / columns
    centres = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1).reshape(-1, 1, 2)
    pairs = [(size, math.sqrt(ratio)) for size in sizes for ratio in config.ratios]
    across = [size * root / width for size, root in pairs]
    down = [size * root / height if config.square else size / root / height for size, root in pairs]
    sides = torch.tensor([across, down], dtype=torch.float64).T
    count = len(sides)
    return torch.cat((centres.expand(-1, count, -1), sides.expand(len(centres), -1, -1)), -1).reshape(-1, 4)
