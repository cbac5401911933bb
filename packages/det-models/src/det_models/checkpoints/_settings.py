"""What a system that we write for is, and how its configurations spell values."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from det_heads import OneStageConfig
from det_heads.config import PixelConfig
from det_models.detector_config import DetectorConfig

__all__ = ["Target", "detectron2_pixels", "mmdetection_pixels", "stds", "torchvision_pixels", "yaml"]

C = TypeVar("C", bound=DetectorConfig | OneStageConfig)


@dataclass(frozen=True)
class Target:
    """A system that we write for.

    Attributes:
        published: Our configuration of its published detectors, like the given one in its kind of parts.
        names: Our field -> its setting, with `{}` for the value; a function writes what is more than a value.
    """

    published: Callable[[Any], Any]
    names: Mapping[str, str | Callable[[Any], str]]

    def preset(self, config: C) -> C:
        """The published detectors' configuration, with the further branches of the given one."""
        plain = self.published(config)
        if not isinstance(config, DetectorConfig):
            return plain
        known = {field.name for field in fields(plain)}
        more = {name: branch for name, branch in config.branches.items() if name not in known}
        return plain.extended(type(config), **more)


def yaml(value: Any) -> str:
    """A value as YAML and Python spell it alike."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(yaml, value))}]"
    return f"{value:.7g}" if isinstance(value, float) else str(value)


def stds(weights: tuple[float, ...]) -> str:
    """Mmdetection's spelling of box coding weights."""
    return yaml(tuple(1 / weight for weight in weights))


def detectron2_pixels(pixels: PixelConfig) -> str:
    """Lines of a configuration."""
    return "\n".join(
        [
            f"INPUT.FORMAT: {pixels.order.upper()}",
            f"MODEL.PIXEL_MEAN: {yaml(pixels.mean)}",
            f"MODEL.PIXEL_STD: {yaml(pixels.std)}",
        ]
    )


def mmdetection_pixels(pixels: PixelConfig) -> str:
    """A line of a configuration."""
    return (
        f"model.data_preprocessor = dict(type='DetDataPreprocessor', mean={yaml(pixels.mean)}, "
        f"std={yaml(pixels.std)}, bgr_to_rgb={pixels.order == 'rgb'}, pad_mask=True, pad_size_divisor=32)"
    )


def torchvision_pixels(pixels: PixelConfig) -> str:
    """Arguments of a detector."""
    return f"image_mean={yaml(pixels.mean)}, image_std={yaml(pixels.std)}"
