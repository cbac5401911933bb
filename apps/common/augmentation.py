"""The augmentation of a recipe beside its resize: from options to steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from det_coco.augment import Step
    from det_coco.transforms import Transform


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Changes of training images beyond the recipe's own resize and mirror; by default none."""

    scale_jitter: tuple[float, float] | None = None
    """Smallest and largest factor of large-scale jitter, such as 0.1 2.0, instead of the resize; every image is then a
    square of `max_size` (YOLACT: `size`)."""
    copy_paste: float = 0.0
    """Probability that objects of another image are pasted."""
    mosaic: float = 0.0
    """Probability that four images are joined into one."""
    mixup: float = 0.0
    """Probability that two images are blended."""
    crop: float = 1.0
    """Smallest share of each side that a random window keeps; 1: no window."""
    ms_crop: bool = False
    """First resize half of the images to 400, 500 or 600 and cut a window of 384 to 600 pixels from them, as DETR and
    the `ms-crop` schedules of mmdetection do."""
    rotation: float = 0.0
    """Largest angle in degrees, in either direction."""
    perspective: float = 0.0
    """Largest shift of a corner inwards, as a share of half a side."""
    colour: float = 0.0
    """Largest change of brightness, contrast and saturation, as a share; hue changes by a twentieth of it."""
    erase: float = 0.0
    """Probability that a rectangle is erased."""
    blur: float = 0.0
    """Probability of a blur."""
    jpeg: float = 0.0
    """Probability of artefacts of strong JPEG compression."""

    def __post_init__(self) -> None:
        for name in ("copy_paste", "mosaic", "mixup", "colour", "erase", "blur", "jpeg"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {getattr(self, name)}")
        if self.scale_jitter is not None and not 0 < self.scale_jitter[0] <= self.scale_jitter[1]:
            raise ValueError(f"scale_jitter must be two positive factors, the lesser first, got {self.scale_jitter}")
        if not 0 < self.crop <= 1:
            raise ValueError(f"crop must be more than 0 and at most 1, got {self.crop}")
        if not 0 <= self.perspective < 1:
            raise ValueError(f"perspective must be at least 0 and less than 1, got {self.perspective}")

    def around(self, resize: Step, *, size: int, flip: float) -> list[Step]:
        """The steps, with the resize among them.

        Args:
            resize: the recipe's own resize and mirror.
            size: side of the square that scale jitter makes.
            flip: probability of a mirror, where scale jitter stands for the resize.
        """
        from det_coco import augment

        steps: list[Step] = []
        if self.mosaic:
            steps.append(augment.Maybe(self.mosaic, augment.Mosaic(size=(size, size))))
        if self.crop < 1:
            steps.append(augment.Crop(share=(self.crop, 1.0)))
        if self.ms_crop:
            steps.append(augment.Maybe(0.5, augment.MultiScaleCrop()))
        if self.rotation:
            steps.append(augment.Rotation(degrees=self.rotation))
        if self.perspective:
            steps.append(augment.Perspective(distortion=self.perspective))
        if self.scale_jitter is None:
            steps.append(resize)
        else:
            steps += [augment.ScaleJitter(size=(size, size), scale=self.scale_jitter), augment.Flip(probability=flip)]
        if self.colour:
            change = self.colour
            steps.append(augment.ColourJitter(brightness=change, contrast=change, saturation=change, hue=change / 20))
        joined = ((self.copy_paste, augment.CopyPaste()), (self.mixup, augment.MixUp()))
        spoilt = ((self.erase, augment.Erasing()), (self.blur, augment.Blur()), (self.jpeg, augment.JPEGNoise()))
        return steps + [augment.Maybe(probability, step) for probability, step in (*joined, *spoilt) if probability]

    def transform(self, resize: Transform, *, size: int, flip: float) -> Transform:
        """The whole augmentation of a recipe, the resize alone where nothing else is asked for: see `around`."""
        from det_coco.augment import Compose

        return resize if self == PLAIN else Compose(self.around(resize, size=size, flip=flip))


PLAIN = AugmentConfig()
"""Nothing."""
