"""What a branch of a detector says of itself before it is built."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from torch import nn

__all__ = ["BranchConfig"]


class BranchConfig:
    """A branch before it is built: the base of its configuration, and all that others need to know of it.

    A detector has the branches that are fields of its configuration (`det_models.DetectorConfig`, or a subclass of it
    with fields for branches of one's own); building, training, checkpoints and reports go by what they say here.

    Attributes:
        module: Name of the branch in the detector, with which the names of its parameters begin, such as `mask_head`.
        title: What a detector is called after it, such as `Mask` for Mask R-CNN; empty if it is called as without it.
        task: What COCO's evaluation calls that which it finds, such as `segm`; empty if it does not evaluate it.
        conventions: Fields on which the meaning of the branch's tensors depends, and not only its training: with the
            tensors of another system's checkpoint come that system's values.
    """

    __slots__ = ()

    module: ClassVar[str]
    title: ClassVar[str] = ""
    task: ClassVar[str] = ""
    conventions: ClassVar[tuple[str, ...]] = ()

    def build(
        self,
        in_channels: int,
        num_classes: int,
        strides: Sequence[int],
        *,
        offset: float = 0.0,
        init: str = "detectron2",
    ) -> nn.Module:
        """Build the branch (:class:`Branch`), randomly initialised.

        Args:
            in_channels: Channels of the pyramid.
            num_classes: Object classes.
            strides: Pixels per cell of each level of the pyramid, finest first.
            offset: Width convention, see :class:`~det_heads.BoxCoder`.
            init: Whose random initialisation the detector has.

        Raises:
            ValueError: Its fields do not go together, or not with these.
        """
        raise NotImplementedError(f"{type(self).__name__} must have a method build, which makes its branch.")

    def batch_shape(self) -> dict[str, Any]:
        """Return fields of `det_coco.BatchShape` by which batches hold what the branch learns from."""
        return {}
