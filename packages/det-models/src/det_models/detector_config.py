"""The complete configuration of a two-stage detector: its parts, and what they share."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from det_heads import BoxHeadConfig, BranchConfig, CascadeConfig, MaskHeadConfig, PixelConfig, RPNConfig

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DetectorConfig"]

D = TypeVar("D", bound="DetectorConfig")


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectorConfig:
    """A complete two-stage detector without its backbone.

    Its branches are the fields that are a :class:`~det_heads.BranchConfig`. A subclass, itself a frozen dataclass, adds
    a field for each branch that it has beside masks, and a checkpoint whose description has these fields is of that
    subclass, wherever it is defined: it must be imported when the checkpoint is read.

    Attributes:
        num_classes: Object classes, background not counted.
        pixels: Input normalisation.
        rpn: First stage.
        box: Second stage.
        mask: Mask branch, or None for Faster R-CNN.
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
    offset: float = 0.0
    init: Literal["detectron2", "torchvision", "maskrcnn_benchmark", "mmdetection"] = "detectron2"

    def __post_init__(self) -> None:
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

    @property
    def branches(self) -> dict[str, BranchConfig]:
        """Its branches beside the box head, by the name of their field."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, BranchConfig)}

    @property
    def title(self) -> str:
        """What its architecture is called, such as Cascade Mask R-CNN."""
        titles = ["Cascade"] if self.cascade is not None else []
        titles += [branch.title for branch in self.branches.values() if branch.title]
        return " ".join([*(titles or ["Faster"]), "R-CNN"])

    def extended(self, kind: type[D], **branches: Any) -> D:
        """The same detector with the branches of a subclass.

        Args:
            kind: The subclass.
            branches: Values of the fields that it adds; by default its own.
        """
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        return kind(**values, **branches)

    @classmethod
    def of_tensors(cls, plain: "DetectorConfig", tensors: Mapping[str, "Tensor"]) -> Self | None:  # noqa: ARG003
        """Recognise another system's detector of this kind by its branches.

        Args:
            plain: What all else in the checkpoint is of.
            tensors: All of them, under our names.

        Returns:
            None if it has none of the branches that this kind adds, as in kinds that no other system has.
        """
        return None

    @classmethod
    def kinds(cls) -> list[type["DetectorConfig"]]:
        """This class and its subclasses, the latest of which comes last."""
        return [cls, *(kind for child in cls.__subclasses__() for kind in child.kinds())]
