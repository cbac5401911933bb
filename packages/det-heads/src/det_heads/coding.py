"""Boxes as offsets from other boxes."""

from dataclasses import dataclass

from torch import Tensor

from det_heads.config import BoxCodingConfig
from det_ops import clip_boxes, decode_boxes, encode_boxes

__all__ = ["BoxCoder"]


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
