"""The complete configuration of a two-stage detector: its parts, and what they share."""

from dataclasses import dataclass, field
from typing import Literal

from det_heads import BoxHeadConfig, CascadeConfig, KeypointHeadConfig, MaskHeadConfig, PixelConfig, RPNConfig

__all__ = ["DetectorConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectorConfig:
    """A complete two-stage detector without its backbone.

    Attributes:
        num_classes: Object classes, background not counted.
        pixels: Input normalisation.
        rpn: First stage.
        box: Second stage.
        mask: Mask branch, or None for Faster R-CNN.
        keypoints: Keypoint branch (Keypoint R-CNN), or None.
        cascade: Stages of a cascade, or None for one box head.
        offset: 0: a box is as wide as ``x2 - x1`` (d2, tv, mm). 1: coordinates are inclusive pixels, the width is
            ``x2 - x1 + 1`` in areas, IoU, NMS, coding, clipping and level assignment (mrb). The batch and
            :func:`det_heads.to_image` always use the first; the detector converts at its borders.
        init: Whose random initialisation the heads get.
    """

    num_classes: int
    pixels: PixelConfig = field(default_factory=PixelConfig)
    rpn: RPNConfig = field(default_factory=RPNConfig)
    box: BoxHeadConfig = field(default_factory=BoxHeadConfig)
    mask: MaskHeadConfig | None = field(default_factory=MaskHeadConfig)
    cascade: CascadeConfig | None = None
    keypoints: KeypointHeadConfig | None = None
    offset: float = 0.0
    init: Literal["detectron2", "torchvision", "maskrcnn_benchmark", "mmdetection"] = "detectron2"

    def __post_init__(self) -> None:
        if self.keypoints is not None and self.offset:
            raise ValueError("keypoints need boxes that are as wide as x2 - x1: offset must be 0, got 1")
        if self.num_classes < 1:
            raise ValueError(f"num_classes must be positive, got {self.num_classes}")
        if self.offset not in (0.0, 1.0):
            raise ValueError(f"offset must be 0 (modern widths) or 1 (inclusive pixels), got {self.offset}")
        systems = ("detectron2", "torchvision", "maskrcnn_benchmark", "mmdetection")
        if self.init not in systems:
            raise ValueError(f"init must be one of {', '.join(systems)}, got {self.init!r}")
        # Which class's box the next stage would refine is a question that no published cascade has.
        if self.cascade is not None and not self.box.class_agnostic:
            raise ValueError("box.class_agnostic must be True in a cascade, got False")
