"""A detector as a function of two tensors, which is what is exported."""

import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from det_heads import MaskHeadConfig, YolactConfig
from det_models.builders import Detector
from det_models.config import ModelConfig
from det_models.detector_config import DetectorConfig
from det_ops import paste_masks

__all__ = ["Program", "exported_program", "inputs_of"]

MOST_IMAGES = 64
"""Of a batch, where their number is open."""


class Program(nn.Module):
    """A detector with all that its configuration says, and boxes in the convention of the rest of the world.

    Shapes: `B` images of `H x W` pixels, `K` detections.

    Args:
        network: In evaluation mode.
        config: What it was built from.
        preprocessing: `in` where it normalises the pixels, `out` where it gets them normalised.
        masks: `28`, `full` or `none`.
        dtype: What convolutions and products are computed in, by autocast; None: float32.
        memory_format: Of the pixels that the first convolution reads, and of the network's weights.
    """

    def __init__(
        self,
        network: Detector,
        config: ModelConfig,
        *,
        preprocessing: Literal["in", "out"] = "in",
        masks: Literal["28", "full", "none"] = "28",
        dtype: torch.dtype | None = None,
        memory_format: torch.memory_format = torch.channels_last,
    ) -> None:
        super().__init__()
        self.network, self.config = network.to(memory_format=memory_format), config
        self.memory_format = memory_format
        self.preprocessing, self.masks, self.dtype = preprocessing, masks, dtype

    def forward(self, images: Tensor, image_sizes: Tensor) -> dict[str, Tensor]:
        """Detect.

        Args:
            images: [B, 3, H, W], uint8 or float32, 0 to 255 and RGB; or float32 and normalised.
            image_sizes: [B, 2] int32, (height, width) of the pictures without padding.

        Returns:
            ``boxes`` [B, K, 4] float32, ``scores`` [B, K] float32, ``labels`` [B, K] int64, ``valid`` [B, K] bool, best
            first, and what else the detector finds, such as ``masks`` [B, K, 28, 28].
        """
        batch = {"images": images, "image_sizes": image_sizes}
        # In here, not around the tracing, where it would leave no trace in the program.
        with nullcontext() if self.dtype is None else torch.autocast("cpu", dtype=self.dtype):
            pixels = self.network.normalize(batch) if self.preprocessing == "in" else images
            pixels = pixels.contiguous(memory_format=self.memory_format)
            found = self.network.from_features(self.network.backbone(pixels), batch)
        found = dict(found)
        if self.masks == "none":
            found = {name: value for name, value in found.items() if not name.startswith("mask")}
        elif self.masks == "full" and "masks" in found:
            found["masks"] = self._full(found, (images.shape[2], images.shape[3]))
        offset = getattr(self.config.detector, "offset", 0.0)
        if offset:
            low, high = found["boxes"].split(2, -1)
            found["boxes"] = torch.cat((low, torch.where(found["valid"][..., None], high + offset, high)), -1)
        return found

    def _full(self, found: Mapping[str, Tensor], size: tuple[int, int]) -> Tensor:
        """Masks [B, K, H, W] bool, of small ones [B, K, h, w]."""
        masks, valid = found["masks"], found["valid"][..., None, None]
        detector = self.config.detector
        if isinstance(detector, YolactConfig):
            return valid & (F.interpolate(masks, size, mode="bilinear", align_corners=False) > 0.5)
        assert isinstance(detector, DetectorConfig)
        head = detector.branches["mask"]
        assert isinstance(head, MaskHeadConfig)
        pasted = paste_masks(
            masks.flatten(0, 1), found["boxes"].flatten(0, 1), *size, threshold=head.paste_threshold, mode=head.paste
        )
        return valid & pasted.unflatten(0, (masks.shape[0], masks.shape[1]))


def inputs_of(program: Program, shape: tuple[int, int], count: int) -> tuple[Tensor, Tensor]:
    """Inputs of noise, `images` [count, 3, H, W] and `image_sizes` [count, 2]."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, *shape), generator=generator, dtype=torch.uint8)
    sizes = torch.tensor([shape] * count, dtype=torch.int32)
    if program.preprocessing == "out":
        return program.network.normalize({"images": images, "image_sizes": sizes}).contiguous(), sizes
    return images.to(program.config.resize.dtype), sizes


def exported_program(program: Program, shape: tuple[int, int], batch: int | Literal["dynamic"]) -> Any:
    """Trace a program.

    Args:
        program: The detector.
        shape: (height, width) of its images.
        batch: How many of them, or `dynamic`.

    Returns:
        A :class:`torch.export.ExportedProgram` with our own operators in it.
    """
    count = 2 if batch == "dynamic" else batch
    shapes = None
    if batch == "dynamic":
        images = {0: torch.export.Dim("B", min=1, max=MOST_IMAGES)}
        shapes = {"images": images, "image_sizes": images}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The tensor attribute")  # anchors are remembered, which is meant
        return torch.export.export(program, inputs_of(program, shape, count), dynamic_shapes=shapes)
