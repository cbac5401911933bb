"""Colour changes of SSD's augmentation, on float pixels that nothing clips."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Distortion:
    """Drawn colour changes; each field's neutral value changes nothing.

    Attributes:
        brightness: added to every channel.
        contrast_before: factor of every channel, before the changes of saturation and hue.
        saturation: factor of the distance from the largest channel, which is HSV's saturation at unchanged value.
        hue: turn of the colour circle in degrees.
        contrast_after: factor of every channel, after them.
    """

    brightness: float = 0.0
    contrast_before: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    contrast_after: float = 1.0

    @staticmethod
    def draw(random: np.random.Generator) -> "Distortion":
        """Draw one as YOLACT's `PhotometricDistort` does: each change with probability one half.

        Brightness +-32, contrast and saturation 0.5 to 1.5, hue +-18 degrees; the contrast comes first or last.

        Args:
            random: source of randomness.

        Returns:
            the changes.
        """
        brightness = _maybe(random, 0.0, -32.0, 32.0)
        contrast = _maybe(random, 1.0, 0.5, 1.5)
        first = random.random() < 0.5
        return Distortion(
            brightness=brightness,
            contrast_before=contrast if first else 1.0,
            saturation=_maybe(random, 1.0, 0.5, 1.5),
            hue=_maybe(random, 0.0, -18.0, 18.0),
            contrast_after=1.0 if first else contrast,
        )

    def pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Change the colours of a picture, rounded: uint8 `[h, w, 3]` from the same."""
        changed = self.apply(torch.tensor(pixels).permute(2, 0, 1).float().contiguous())
        return changed.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()

    def apply(self, pixels: Tensor) -> Tensor:
        """Change the colours of a picture.

        Args:
            pixels: float32 `[3, h, w]` RGB, 0..255.

        Returns:
            float32 `[3, h, w]`, which may leave 0..255, as in YOLACT.
        """
        if self.brightness or self.contrast_before != 1.0:
            pixels = (pixels + self.brightness) * self.contrast_before
        if self.hue:
            pixels = _turn_hue(pixels, self.hue, self.saturation)
        elif self.saturation != 1.0:
            pixels = torch.lerp(pixels.amax(dim=0, keepdim=True), pixels, self.saturation)
        return pixels if self.contrast_after == 1.0 else pixels * self.contrast_after


def _maybe(random: np.random.Generator, neutral: float, low: float, high: float) -> float:
    return float(random.uniform(low, high)) if random.random() < 0.5 else neutral


def _turn_hue(pixels: Tensor, degrees: float, saturation: float) -> Tensor:
    """Turn the hue and scale the saturation, value unchanged.

    With HSV's value `V`, chroma `C = V * S` and hue `h` in sixths of the circle, channel n of (5, 3, 1) is
    `V - C * clamp(min(k, 4 - k), 0, 1)`, `k = (n + h) mod 6`.
    """
    red, green, blue = pixels
    value, low = pixels.amax(dim=0), pixels.amin(dim=0)
    chroma = value - low
    safe = torch.where(chroma > 0, chroma, 1.0)
    hue = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    hue += degrees / 60
    chroma *= saturation
    out = torch.empty_like(pixels)
    for channel, offset in enumerate((5, 3, 1)):
        k = torch.remainder(hue + offset, 6)
        torch.sub(value, torch.minimum(k, 4 - k).clamp_(0, 1).mul_(chroma), out=out[channel])
    return out
