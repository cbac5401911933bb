"""A resize whose pictures fit into the shape that a network was exported for."""

from dataclasses import dataclass
from typing import Self

from det_coco import Resize

__all__ = ["FittingResize"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FittingResize(Resize):
    """A resize that makes a picture smaller where it would not fit into any of some shapes.

    Attributes:
        shapes: (height, width) of each.
    """

    shapes: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, resize: Resize, shapes: tuple[tuple[int, int], ...]) -> Self:
        """The resize, within shapes."""
        return cls(shortest=resize.shortest, longest=resize.longest, rule=resize.rule, shapes=shapes)

    def output_size(self, height: int, width: int, shortest: int | None = None) -> tuple[int, int]:
        """(height, width) of a picture resized; see :meth:`Resize.output_size`."""
        size = Resize.output_size(self, height, width, shortest)
        scale = max(min(1.0, high / size[0], wide / size[1]) for high, wide in self.shapes)
        return size if scale == 1.0 else (max(int(size[0] * scale), 1), max(int(size[1] * scale), 1))
