"""What a mask head is before it is built."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from det_heads.branch_config import BranchConfig
from det_heads.config import MOST_CONVS, PoolConfig, require

if TYPE_CHECKING:
    from det_heads.mask_head import MaskHead

__all__ = ["MaskHeadConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskHeadConfig(BranchConfig):
    """Mask branch (Mask R-CNN, section 3).

    Attributes:
        pool: RoIAlign; the mask has twice its size.
        convs: Number of 3x3 convolutions.
        channels: Their width.
        norm: Their normalisation, as in :class:`BoxHeadConfig`; batch statistics are those of the positive boxes.
        target: What the mask is trained on. `polygon`: polygons cut to the RoI and rasterised by COCO's rule (d2);
            `polygon_legacy`: the same with maskrcnn-benchmark's integer crop box (mrb); `bitmap`: RoIAlign of the
            full-size bitmap (tv, mm; d2 with bitmask input).
        bitmap_aligned: RoIAlign alignment of bitmap targets: True in d2 and mm, False in tv.
        bitmap_threshold: Binarise bitmap targets at this value (d2, mm: 0.5); None keeps fractions (tv).
        paste: Mapping of the mask onto the image: `grid_sample` (d2, mm) or `expanded`: one pixel of padding, the box
            enlarged accordingly, truncated to integers, + 1 (mrb, tv).
        paste_threshold: Probability from which a pixel belongs to the mask.
    """

    module: ClassVar[str] = "mask_head"
    title: ClassVar[str] = "Mask"
    task: ClassVar[str] = "segm"
    conventions: ClassVar[tuple[str, ...]] = ("pool", "norm", "paste", "paste_threshold")

    pool: PoolConfig = field(default_factory=lambda: PoolConfig(size=14))
    convs: int = 4
    channels: int = 256
    norm: Literal["bn", "gn", "ln"] | None = None
    target: Literal["polygon", "polygon_legacy", "bitmap"] = "polygon"
    bitmap_aligned: bool = True
    bitmap_threshold: float | None = 0.5
    paste: Literal["grid_sample", "expanded"] = "grid_sample"
    paste_threshold: float = 0.5

    def __post_init__(self) -> None:
        require(0 <= self.convs <= MOST_CONVS, "mask.convs", f"0 to {MOST_CONVS}", self.convs)
        require(self.channels > 0, "mask.channels", "positive", self.channels)
        require(self.norm in (None, "bn", "gn", "ln"), "mask.norm", "bn, gn, ln or None", self.norm)
        require(
            self.target in ("polygon", "polygon_legacy", "bitmap"),
            "mask.target",
            "polygon, polygon_legacy or bitmap",
            self.target,
        )
        require(self.paste in ("grid_sample", "expanded"), "mask.paste", "grid_sample or expanded", self.paste)

    def build(
        self,
        in_channels: int,
        num_classes: int,
        strides: Sequence[int],
        *,
        offset: float = 0.0,
        init: str = "detectron2",
    ) -> "MaskHead":
        """Build the head; see :meth:`BranchConfig.build`."""
        from det_heads.mask_head import MaskHead

        return MaskHead(in_channels, num_classes, self, strides, offset=offset, init=init)

    def batch_shape(self) -> dict[str, Any]:
        """Ask for masks in the form of the target; see :meth:`BranchConfig.batch_shape`."""
        return {"masks": "bitmaps" if self.target == "bitmap" else "polygons"}
