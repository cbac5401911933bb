"""What all detectors on a feature pyramid have for whoever trains or exports them."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from det_heads.parts import BatchPart
from det_heads.pixels import Normalize

__all__ = ["PyramidDetector"]


class PyramidDetector(nn.Module):
    """A detector whose backbone sees normalised images.

    Args:
        backbone: Maps normalised images to a pyramid and, for learning rates by layer, has ``layer_groups()``.
        pixels: Makes the backbone's input.
    """

    def __init__(self, backbone: nn.Module, pixels: Normalize) -> None:
        super().__init__()
        self.pixels = pixels
        self.backbone = backbone

    def normalize(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Make the backbone's input [B, 3, H, W] float32 of ``images`` and ``image_sizes``."""
        return self.pixels(batch["images"], batch["image_sizes"])

    def batch_part(self, index: int, count: int, mean: Callable[[Tensor], Tensor]) -> BatchPart:
        """Make what `forward` takes as `part`; this and :meth:`layer_groups` are what `det_engine` asks for."""
        return BatchPart(index, count, mean)

    def layer_groups(self) -> tuple[tuple[str, ...], ...]:
        """Return what the names of the backbone's parameters begin with, layer by layer from the input on."""
        groups = self.backbone.layer_groups()  # type: ignore[operator]
        return tuple(tuple(f"backbone.{prefix}" for prefix in group) for group in groups)
