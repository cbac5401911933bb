"""What a keypoint head is before it is built."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from det_heads.branch_config import BranchConfig
from det_heads.config import MOST_CONVS, PoolConfig, require

if TYPE_CHECKING:
    from det_heads.keypoint_head import KeypointHead

__all__ = ["KeypointHeadConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class KeypointHeadConfig(BranchConfig):
    """Keypoint branch of torchvision's ``keypointrcnn_resnet50_fpn``.

    Attributes:
        num_keypoints: Keypoints of an object, ``J``.
        pool: RoIAlign; the heatmaps have four times its size.
        convs: Number of 3x3 convolutions.
        channels: Their width.
    """

    module: ClassVar[str] = "keypoint_head"
    title: ClassVar[str] = "Keypoint"
    task: ClassVar[str] = "keypoints"
    conventions: ClassVar[tuple[str, ...]] = ("pool",)

    num_keypoints: int = 17
    pool: PoolConfig = field(
        default_factory=lambda: PoolConfig(
            size=14, sampling_ratio=2, aligned=False, level_epsilon=1e-6, level_epsilon_inside_log=False
        )
    )
    convs: int = 8
    channels: int = 512

    def __post_init__(self) -> None:
        for name in ("num_keypoints", "convs", "channels"):
            require(getattr(self, name) > 0, f"keypoints.{name}", "positive", getattr(self, name))
        require(self.convs <= MOST_CONVS, "keypoints.convs", f"1 to {MOST_CONVS}", self.convs)

    def build(
        self,
        in_channels: int,
        num_classes: int,  # noqa: ARG002
        strides: Sequence[int],
        *,
        offset: float = 0.0,
        init: str = "detectron2",  # noqa: ARG002
    ) -> "KeypointHead":
        """Build the head; see :meth:`BranchConfig.build`.

        Raises:
            ValueError: Boxes are wider than ``x2 - x1``.
        """
        require(offset == 0, "offset", "0 in a detector of keypoints, whose boxes are as wide as x2 - x1", offset)
        from det_heads.keypoint_head import KeypointHead

        return KeypointHead(in_channels, self, strides)

    def batch_shape(self) -> dict[str, Any]:
        """Ask for as many keypoints of each object; see :meth:`BranchConfig.batch_shape`."""
        return {"keypoints": self.num_keypoints}
