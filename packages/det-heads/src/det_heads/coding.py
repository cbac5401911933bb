"""Boxes as offsets from other boxes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from det_heads.config import BoxCodingConfig
from det_ops import clip_boxes, decode_boxes, encode_boxes

__all__ = ["BoxCoder", "DistanceCoder"]


@dataclass(frozen=True, slots=True)
class BoxCoder:
    """Coding of boxes relative to other boxes (R-CNN, appendix C), and what a box's width is.

    Attributes:
        coding: Weights and clamps.
        offset: Width convention: a box is as wide as ``x2 - x1 + offset``; 1 where x2 is the last pixel of the object.
    """

    coding: BoxCodingConfig
    offset: float = 0.0

    def encode(self, boxes: Tensor, references: Tensor) -> Tensor:
        """Return the deltas [..., 4] that turn the references [..., 4] into the boxes [..., 4]."""
        return encode_boxes(boxes, references, self.coding.weights, offset=self.offset)

    def decode(self, deltas: Tensor, references: Tensor) -> Tensor:
        """Return the boxes [..., 4] into which deltas [..., 4] turn the references [..., 4]."""
        return decode_boxes(
            deltas,
            references,
            self.coding.weights,
            offset=self.offset,
            max_log_scale=self.coding.max_log_scale,
            clamp_below=self.coding.clamp_below,
        )

    def clip(self, boxes: Tensor, image_sizes: Tensor) -> Tensor:
        """Cut boxes [B, N, 4] at the borders of images of sizes [B, 2] (height, width)."""
        return clip_boxes(boxes, image_sizes, offset=self.offset)

    def sides(self, boxes: Tensor) -> Tensor:
        """Return width and height [..., 2] of boxes [..., 4] in pixels."""
        return boxes[..., 2:] - boxes[..., :2] + self.offset


@dataclass(frozen=True, slots=True)
class DistanceCoder:
    """Coding of boxes as the distances of their sides from a place, in units of its square reference (FCOS).

    Source: detectron2's `Box2BoxTransformLinear` and torchvision's `BoxLinearCoder`, both normalised by size.

    Attributes:
        offset: Width convention, see :class:`BoxCoder`: none but the modern one.
    """

    offset: float = 0.0

    def encode(self, boxes: Tensor, references: Tensor) -> Tensor:
        """Return the distances [..., 4] (left, top, right, bottom) of the boxes' sides [..., 4] from the centres."""
        centre, size = self._places(references)
        return torch.cat((centre - boxes[..., :2], boxes[..., 2:] - centre), -1) / size

    def decode(self, deltas: Tensor, references: Tensor) -> Tensor:
        """Return the boxes [..., 4] whose sides are so far [..., 4] from the centres; negative distances are none."""
        centre, size = self._places(references)
        low, high = (deltas.clamp(min=0) * size).split(2, -1)
        return torch.cat((centre - low, centre + high), -1)

    def clip(self, boxes: Tensor, image_sizes: Tensor) -> Tensor:
        """Cut boxes [B, N, 4] at the borders of images of sizes [B, 2] (height, width)."""
        return clip_boxes(boxes, image_sizes)

    @staticmethod
    def _places(references: Tensor) -> tuple[Tensor, Tensor]:
        """Centres [..., 2] and sides [..., 1] of squares [..., 4]."""
        low, high = references[..., :2], references[..., 2:]
        return (low + high) / 2, (high - low)[..., :1]
