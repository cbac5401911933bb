"""Steps that change pixels and move nothing."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from det_coco.annotated import Annotated
from det_coco.augment.outlines import map_points, rectangle
from det_coco.augment.scene import Layer, Scene
from det_coco.augment.warp import Warp

# Shares of red, green and blue in brightness (ITU-R BT.601).
_LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True, kw_only=True)
class ColourJitter:
    """Brightness, contrast, saturation and hue, composed to one affine map of colours and applied in one pass.

    Each is such a map (Haeberli, "Matrix operations for image processing", 1993): brightness a factor, contrast one
    around middle grey, saturation one around the grey of the same brightness, hue a turn about the axis of greys.

    Attributes:
        brightness: the factor is 1 - brightness to 1 + brightness.
        contrast: likewise.
        saturation: likewise.
        hue: greatest turn either way, as a share of the colour circle.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.02

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {getattr(self, name)}.")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"hue must be between 0 and 0.5, got {self.hue}.")

    def __call__(self, scene: Scene, random: np.random.Generator) -> Scene:
        """Draw the four changes."""
        brightness, contrast, saturation = (
            1 + random.uniform(-reach, reach) for reach in (self.brightness, self.contrast, self.saturation)
        )
        grey = np.tile(_LUMA, (3, 1))
        colours = grey + saturation * (np.eye(3) - grey)
        linear = contrast * brightness * (_turn(random.uniform(-self.hue, self.hue)) @ colours)  # [3, 3]
        offset = np.full((3, 1), 127.5 * (1 - contrast))
        rows = tuple(np.concatenate((linear, offset), axis=1).reshape(-1).tolist())

        def effect(pixels: np.ndarray) -> np.ndarray:
            return np.asarray(Image.fromarray(pixels).convert("RGB", rows))

        return scene.changed(effect)


def _turn(share: float) -> np.ndarray:
    """Turn of RGB about the axis of greys by a share of the circle: `[3, 3]`."""
    cos, sin = np.cos(2 * np.pi * share), np.sin(2 * np.pi * share)
    across = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    return cos * np.eye(3) + (1 - cos) / 3 + sin * across


@dataclass(frozen=True, kw_only=True)
class Blur:
    """A Gaussian blur.

    Attributes:
        sigma: least and greatest standard deviation in pixels.
    """

    sigma: tuple[float, float] = (0.1, 2.0)

    def __post_init__(self) -> None:
        if not 0 <= self.sigma[0] <= self.sigma[1]:
            raise ValueError(f"sigma must be two numbers, the lesser first, got {self.sigma}.")

    def __call__(self, scene: Scene, random: np.random.Generator) -> Scene:
        """Draw the standard deviation."""
        blur = ImageFilter.GaussianBlur(random.uniform(*self.sigma))
        return scene.changed(lambda pixels: np.asarray(Image.fromarray(pixels).filter(blur)))


@dataclass(frozen=True, kw_only=True)
class JPEGNoise:
    """The traces of a strong JPEG compression.

    Attributes:
        quality: least and greatest quality, 1 to 95 as Pillow counts.
    """

    quality: tuple[int, int] = (30, 95)

    def __post_init__(self) -> None:
        if not 1 <= self.quality[0] <= self.quality[1] <= 95:
            raise ValueError(f"quality must be two numbers from 1 to 95, the lesser first, got {self.quality}.")

    def __call__(self, scene: Scene, random: np.random.Generator) -> Scene:
        """Draw the quality."""
        quality = int(random.integers(self.quality[0], self.quality[1] + 1))

        def effect(pixels: np.ndarray) -> np.ndarray:
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "JPEG", quality=quality)
            return np.asarray(Image.open(file))

        return scene.changed(effect)


@dataclass(frozen=True, kw_only=True)
class Erasing:
    """A rectangle of one random colour (Zhong et al., "Random Erasing Data Augmentation", 2020); objects stay.

    Attributes:
        share: least and greatest share of the canvas.
        aspect: least and greatest height / width.
    """

    share: tuple[float, float] = (0.02, 0.2)
    aspect: tuple[float, float] = (0.3, 3.3)

    def __post_init__(self) -> None:
        if not 0 < self.share[0] <= self.share[1] <= 1:
            raise ValueError(f"share must be two numbers of up to 1, the lesser first, got {self.share}.")
        if not 0 < self.aspect[0] <= self.aspect[1]:
            raise ValueError(f"aspect must be two positive numbers, the lesser first, got {self.aspect}.")

    def __call__(self, scene: Scene, random: np.random.Generator) -> Scene:
        """Draw the rectangle and its colour."""
        area = random.uniform(*self.share) * scene.height * scene.width
        aspect = np.exp(random.uniform(*np.log(self.aspect)))
        height = int(np.clip(round((area * aspect) ** 0.5), 1, scene.height))
        width = int(np.clip(round((area / aspect) ** 0.5), 1, scene.width))
        top, left = (int(random.integers(room + 1)) for room in (scene.height - height, scene.width - width))
        colour = random.integers(0, 256, (1, 1, 3), dtype=np.uint8)
        matrix = np.array([[width, 0, left], [0, height, top], [0, 0, 1.0]])
        corners = map_points(matrix, rectangle(1, 1))
        # A picture of one pixel, which later steps move as they move the others.
        patch = Layer(picture=Annotated.without_objects(colour), view=Warp(matrix=matrix), region=corners)
        return scene.on_top(patch)
