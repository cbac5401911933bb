"""Input normalisation, the detector's first operation on the device."""

import torch
from torch import Tensor, nn

from det_backbones import PixelConfig

__all__ = ["Normalize"]


class Normalize(nn.Module):
    """Turns padded RGB pixels into the network's input.

    Args:
        config: Channel order, scale, mean and standard deviation.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: PixelConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.tensor(config.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.std).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor, image_sizes: Tensor) -> Tensor:
        """Normalises, then zeroes the padding, so that padding is the mean colour.

        Args:
            images: [B, 3, H, W] uint8 or float32 in 0..255, RGB, padded at right and bottom.
            image_sizes: [B, 2] integer (height, width) inside the padding.

        Returns:
            [B, 3, H, W] float32, channels-last in memory.

        Raises:
            ValueError: Images are not [B, 3, H, W], or sizes not [B, 2].
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images must be [B, 3, H, W], got {tuple(images.shape)}")
        if image_sizes.shape != (images.shape[0], 2):
            raise ValueError(f"image_sizes must be [{images.shape[0]}, 2], got {tuple(image_sizes.shape)}")
        height, width = images.shape[-2:]
        if self.config.order == "bgr":
            images = images.flip(1)
        pixels = torch.empty_like(images, dtype=torch.float32, memory_format=torch.channels_last).copy_(images)
        if self.config.scale != 1.0:
            pixels.div_(self.config.scale)
        pixels.sub_(self.mean)
        if self.config.std != (1.0, 1.0, 1.0):
            pixels.div_(self.std)
        rows = torch.arange(height, device=images.device) < image_sizes[:, :1]  # [B, H]
        columns = torch.arange(width, device=images.device) < image_sizes[:, 1:]  # [B, W]
        return pixels.mul_(rows[:, None, :, None] & columns[:, None, None, :])
