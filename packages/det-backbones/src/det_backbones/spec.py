"""What a backbone states of itself: its architecture before it is built, its channels and strides afterwards."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from det_backbones.norm import Norm


class Pyramid(Protocol):
    """What a detector needs of its backbone, as :class:`det_backbones.ResNetFPN` has it."""

    @property
    def out_channels(self) -> int:
        """Channels of every level."""
        ...

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the input per cell of each level, fine to coarse."""
        ...

    def __call__(self, x: Tensor, /) -> Sequence[Tensor]:
        """From `Tensor[N, 3, H, W]`, levels `Tensor[N, out_channels, H / strides[l], W / strides[l]]`, rounded."""
        ...


class Body(Protocol):
    """What a pyramid needs of the network below it, as :func:`det_backbones.resnet` has it."""

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of each feature, fine to coarse."""
        ...

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the input per cell of each feature."""
        ...

    def layer_groups(self) -> tuple[tuple[str, ...], ...]:
        """What the names of the parameters begin with, layer by layer from the input on."""
        ...

    def __call__(self, x: Tensor, /) -> Sequence[Tensor]:
        """From `Tensor[N, 3, H, W]`, features `Tensor[N, out_channels[i], H / strides[i], W / strides[i]]`, rounded."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class BackboneSpec:
    """The architecture of a body and its pyramid, from which they can be built again.

    Attributes:
        name: "resnet" (ResNets and ResNeXts) or "darknet53", of which the next five say nothing.
        depth: 18, 34, 50, 101 or 152.
        width: Channels of the stem.
        groups: Of the 3 x 3 convolutions.
        width_per_group: Channels of each group in the first stage.
        stride_in_1x1: Where bottlenecks have their stride.
        norm: Normalisation of the body.
        norm_eps: Its epsilon.
        deformable_blocks: How many blocks at the end of each stage may have deformable convolutions.
        deformable_interval: Of these, every how many-th does.
        pyramid_channels: Channels of every level.
        pyramid_norm: Normalisation after the pyramid's convolutions, which then have no bias.
    """

    name: str = "resnet"
    depth: Literal[18, 34, 50, 101, 152] = 50
    width: int = 64
    groups: int = 1
    width_per_group: int = 64
    stride_in_1x1: bool = False
    norm: Norm = "frozen_bn"
    norm_eps: float = 1e-5
    deformable_blocks: tuple[int, int, int, int] = (0, 0, 0, 0)
    deformable_interval: int = 1
    pyramid_channels: int = 256
    pyramid_norm: Norm | None = None

    def __str__(self) -> str:
        if self.name == "darknet53":
            return "DarkNet-53"
        if self.name != "resnet":
            return self.name
        if self.groups == 1:
            return f"ResNet-{self.depth}"
        return f"ResNeXt-{self.depth} {self.groups}x{self.width_per_group}d"
