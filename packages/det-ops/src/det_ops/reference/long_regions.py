"""RoIAlign of regions that are longer than the maps, on the CPU.

With adaptive sampling a region has as many samples as it is long. The tables of `roi_align.py`, whose shapes must not
depend on values, have room for a region as long as the largest map and two pixels more, as clipping to the image
guarantees; a longer one is marked by NaN. On the CPU, where looking at values costs nothing, it is computed here;
elsewhere NaN is the result, rather than a number that is silently wrong.

`P` pooled cells along a side, `L` rows (or columns) of a map.
"""

import torch
from torch import Tensor

_MOST_SAMPLES = 2**30
"""Of a cell; a region with more gives zeros, in the kernels too."""


def marked(row_weights: Tensor, column_weights: Tensor) -> list[int]:
    """Regions whose weights, `[R, P, T]` each, are marked: to be computed here. None unless on the CPU."""
    if row_weights.device.type != "cpu":
        return []
    long = row_weights.isnan().flatten(1).any(1) | column_weights.isnan().flatten(1).any(1)  # [R]
    if torch.equal(long, torch.zeros_like(long)):
        return []
    return long.nonzero().flatten().tolist()


def weights(corners: Tensor, size: tuple[int, int], pooled: tuple[int, int], aligned: bool) -> tuple[Tensor, Tensor]:
    """Weights of the rows `[P, H]` and of the columns `[P, W]` of a map for the cells of a region.

    Args:
        corners: `[4]`, the region in feature coordinates.
        size: Height and width of the map.
        pooled: Number of cells.
        aligned: Whether regions may be smaller than one pixel.
    """
    x1, y1, x2, y2 = corners.unbind()
    return _side(y1, y2, size[0], pooled[0], aligned), _side(x1, x2, size[1], pooled[1], aligned)


def _side(start: Tensor, end: Tensor, limit: int, pooled: int, aligned: bool) -> Tensor:
    """`[P, L]`, already divided by the number of samples."""
    length = end - start if aligned else (end - start).clamp(min=1.0)
    cell = length / pooled
    samples = cell.ceil()
    found = start.new_zeros((pooled, limit))
    if not 1 <= float(samples) <= _MOST_SAMPLES:
        return found
    for i in range(pooled):
        origin = start + i * cell
        # Two more samples at both ends for rounding.
        first, last = (float((edge - origin) / (cell / samples)) for edge in (-2.0, limit + 1.0))
        first, last = (int(min(max(bound, 0.0), float(samples))) for bound in (first - 2.0, last + 2.0))
        number = torch.arange(first, last).to(start.dtype)
        position = origin + (number + 0.5) * cell / samples
        position = position[(position >= -1.0) & (position <= limit)].clamp(0.0, limit - 1.0)
        low = position.floor()
        fraction = position - low
        found[i].index_add_(0, low.long(), 1.0 - fraction)
        found[i].index_add_(0, (low + 1.0).clamp(max=limit - 1.0).long(), fraction)
    return found / samples
