"""Anchor boxes over a feature pyramid."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from det_heads.config import AnchorConfig

__all__ = ["Anchors", "cell_anchors", "inside_image"]


def cell_anchors(sizes: Sequence[float], ratios: Sequence[float], stride: int, rounding: str = "none") -> Tensor:
    """Anchors of one grid cell relative to the cell's origin.

    Args:
        sizes: Square roots of the areas in pixels.
        ratios: Height divided by width.
        stride: Cell size in pixels; only the legacy roundings depend on it.
        rounding: `none`, `round`, `legacy` or `legacy_round`, see :class:`~det_heads.config.AnchorConfig`.

    Returns:
        [A, 4] float32, x1, y1, x2, y2. `none` and `legacy` order by size, then ratio, as detectron2 does for one level
        and maskrcnn-benchmark with one size; the others order by ratio, then size, as torchvision and mmdetection do.
    """
    if rounding == "legacy":
        return _legacy_cell_anchors(sizes, ratios, stride)
    if rounding == "round":
        # float32 throughout, as torchvision: its roundings decide ties such as 22.5.
        tall = torch.sqrt(torch.tensor(ratios, dtype=torch.float32))
        size = torch.tensor(sizes, dtype=torch.float32)
        widths = ((1 / tall)[:, None] * size).flatten()
        heights = (tall[:, None] * size).flatten()
        return (torch.stack([-widths, -heights, widths, heights], dim=1) / 2).round()
    if rounding == "legacy_round":
        tall = torch.sqrt(torch.tensor(ratios, dtype=torch.float32))[:, None]
        size = torch.tensor(sizes, dtype=torch.float32)
        half_width, half_height = ((size / tall - 1) / 2).flatten(), ((size * tall - 1) / 2).flatten()
        corners = torch.stack([-half_width, -half_height, half_width, half_height], dim=1)
        return (corners + (stride - 1) / 2).round()
    boxes = []
    for size in sizes:
        for ratio in ratios:
            width = math.sqrt(size**2 / ratio)
            height = ratio * width
            boxes.append([-width / 2, -height / 2, width / 2, height / 2])
    return torch.tensor(boxes, dtype=torch.float32)


def _legacy_cell_anchors(sizes: Sequence[float], ratios: Sequence[float], stride: int) -> Tensor:
    """Faster R-CNN's original windows: ratios are rounded at the size of one cell and then scaled."""
    centre = (stride - 1) / 2
    boxes = []
    for ratio in ratios:
        cell_width = round(math.sqrt(stride * stride / ratio))
        cell_height = round(cell_width * ratio)
        for size in sizes:
            width, height = cell_width * size / stride, cell_height * size / stride
            half_width, half_height = (width - 1) / 2, (height - 1) / 2
            boxes.append([centre - half_width, centre - half_height, centre + half_width, centre + half_height])
    return torch.tensor(boxes, dtype=torch.float32)


def inside_image(anchors: Tensor, image_sizes: Tensor, straddle: float) -> Tensor:
    """Tell which anchors stay within an image, allowing ``straddle`` pixels.

    Args:
        anchors: [N, 4].
        image_sizes: [B, 2] (height, width).
        straddle: Pixels allowed beyond the border.

    Returns:
        [B, N] bool. Source: maskrcnn-benchmark anchor_generator.py, ``add_visibility_to``.
    """
    limit = image_sizes.to(anchors.dtype)[:, :, None] + straddle  # [B, 2, 1]
    inside = (anchors[:, 0] >= -straddle) & (anchors[:, 1] >= -straddle)
    return inside & (anchors[:, 2] < limit[:, 1]) & (anchors[:, 3] < limit[:, 0])


_MOST_IN_INFERENCE = 16


class Anchors(nn.Module):
    """All anchors of a pyramid: levels fine to coarse, then y, x, then anchor within the cell.

    Args:
        config: Sizes, ratios and conventions.
        strides: Pixels per cell of each level.

    Raises:
        ValueError: As many sizes as levels are needed.
    """

    def __init__(self, config: AnchorConfig, strides: Sequence[int]) -> None:
        super().__init__()
        if len(config.sizes) != len(strides):
            raise ValueError(
                f"anchors.sizes must have one entry per level, got {len(config.sizes)} for {len(strides)} levels"
            )
        self.config = config
        self.strides = tuple(strides)
        for level, (sizes, stride) in enumerate(zip(config.sizes, strides, strict=True)):
            cells = cell_anchors(sizes, config.ratios, stride, config.rounding)
            self.register_buffer(f"cells{level}", cells, persistent=False)
        # About 4 MB per image shape. In training shapes are the few buckets of a configuration, and captured graphs may
        # read these very tensors; in inference there may be hundreds.
        self._of_training: dict[tuple[object, ...], Tensor] = {}
        self._recent: dict[tuple[object, ...], Tensor] = {}

    def forward(self, grids: Sequence[tuple[int, int]], image_shape: tuple[int, int]) -> Tensor:
        """Anchors of one padded image shape, remembered per shape and device; in inference the last 16.

        Args:
            grids: (height, width) of each level's feature map.
            image_shape: Padded (height, width) of the images.

        Returns:
            [N, 4] float32, N = sum of ``height * width * A``.
        """
        key = (tuple(grids), image_shape, self.get_buffer("cells0").device)
        known = self._of_training if self.training or key in self._of_training else self._recent
        anchors = known.pop(key, None)
        if anchors is None:
            anchors = torch.cat([self._level(level, grid, image_shape) for level, grid in enumerate(grids)])
        known[key] = anchors  # the one used last is the last
        for old in list(self._recent)[:-_MOST_IN_INFERENCE]:
            self._recent.pop(old, None)
        return anchors

    def _level(self, level: int, grid: tuple[int, int], image_shape: tuple[int, int]) -> Tensor:
        cells = self.get_buffer(f"cells{level}")
        step_y = step_x = self.strides[level]
        if self.config.grid == "image":
            step_y, step_x = image_shape[0] // grid[0], image_shape[1] // grid[1]
        y = torch.arange(grid[0], device=cells.device, dtype=cells.dtype) * step_y
        x = torch.arange(grid[1], device=cells.device, dtype=cells.dtype) * step_x
        shifts = torch.stack([x.expand(grid), y[:, None].expand(grid)], dim=-1).repeat(1, 1, 2)  # [H, W, 4]
        return (shifts[:, :, None] + cells).reshape(-1, 4)
