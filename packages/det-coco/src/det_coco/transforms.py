"""Augmentation: what is drawn for an image, and how its picture, boxes, masks and keypoints follow."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from det_coco.resize import Resize

if TYPE_CHECKING:
    from det_coco.augment.scene import Scene


class View(Protocol):
    """What was drawn for one image: how its picture, boxes and masks become those of the batch.

    `h, w` are the original height and width, `H, W` the resized ones.
    """

    @property
    def height(self) -> int:
        """H."""
        ...

    @property
    def width(self) -> int:
        """W."""
        ...

    @property
    def scale_y(self) -> float:
        """Resized / original height."""
        ...

    @property
    def scale_x(self) -> float:
        """Resized / original width."""
        ...

    @property
    def matrix(self) -> np.ndarray:
        """From x, y, 1 in original pixels to resized ones: float64 `[3, 3]`."""
        ...

    def keep(self, boxes: np.ndarray) -> np.ndarray:
        """Say which objects stay: bool `[N]` for boxes `[N, 4]` in original pixels."""
        ...

    def image(self, pixels: np.ndarray) -> torch.Tensor:
        """Resize a picture: `[3, H, W]` from uint8 `[h, w, 3]`."""
        ...

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Carry boxes along: float32 `[N, 4]` in resized pixels from `[N, 4]` in original pixels."""
        ...

    def edges(self, edges: np.ndarray, offset: float | None = None) -> np.ndarray:
        """Carry line segments along: float32 `[E, 4]` in resized pixels from `[E, 4]` in original pixels."""
        ...

    def keypoints(self, keypoints: np.ndarray, flip_indices: Sequence[int]) -> np.ndarray:
        """Carry keypoints along: float32 `[N, J, 3]` x, y, visibility from `[N, J, 3]` in original pixels."""
        ...

    def bitmap(self, mask: np.ndarray) -> torch.Tensor:
        """Carry a mask along: bool `[H, W]` from uint8 `[h, w]` of 0 and 1."""
        ...


class Transform(Protocol):
    """What training does to each picture: a step, or `Compose` of several."""

    @property
    def legacy(self) -> bool:
        """Whether pixel coordinates are inclusive, as in maskrcnn-benchmark."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Type of the pixels that it makes: uint8, or float32 where it makes fractions."""
        ...

    def output_sizes(self, height: int, width: int) -> Sequence[tuple[int, int]]:
        """All sizes (height, width) that it may make of a picture, which say what images may share a batch."""
        ...

    def __call__(self, scene: "Scene", random: np.random.Generator | None) -> "Scene":
        """Draw what is done to a picture; without `random` what an evaluation does."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """Random resize and horizontal flip of an image in training.

    Attributes:
        resize: the sizes to draw from.
        flip: probability of a horizontal flip.
        legacy: mirror as maskrcnn-benchmark does, whose last pixel is x + w - 1: x becomes width - 1 - x, and boxes
            of at most one pixel are left out. The batch's boxes stay free of the +1 all the same.
    """

    resize: Resize = field(default_factory=Resize)
    flip: float = 0.5
    legacy: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip must be a probability between 0 and 1, got {self.flip}.")

    @property
    def dtype(self) -> torch.dtype:
        """Type of resized pixels."""
        return self.resize.dtype

    def output_sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """The size (height, width) that a picture has at each of the lengths."""
        return self.resize.output_sizes(height, width)

    def __call__(self, scene: "Scene", random: np.random.Generator | None) -> "Scene":
        """Draw the geometry of a picture, see `draw`."""
        return scene.seen(self.draw(scene.height, scene.width, random))

    def draw(
        self,
        height: int,
        width: int,
        random: np.random.Generator | None,
        boxes: np.ndarray | None = None,
        crowd: np.ndarray | None = None,
    ) -> "Geometry":
        """Draw the geometry of one image.

        Args:
            height: original height in pixels.
            width: original width in pixels.
            random: source of randomness; None gives the last size and no flip, as evaluation wants.
            boxes: `[N, 4]` x1, y1, x2, y2 of its objects in original pixels, which make no difference here.
            crowd: bool `[N]`, which of them are crowd regions.

        Returns:
            what to do with the picture, its boxes and its masks.
        """
        del boxes, crowd
        if random is None:
            shortest, flip = self.resize.shortest[-1], False
        else:
            shortest = self.resize.shortest[int(random.integers(len(self.resize.shortest)))]
            flip = bool(random.random() < self.flip)
        new_height, new_width = self.resize.output_size(height, width, shortest)
        return Geometry(
            height=new_height,
            width=new_width,
            scale_y=new_height / height,
            scale_x=new_width / width,
            flip=flip,
            offset=1.0 if self.legacy else 0.0,
            resize=self.resize,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Geometry:
    """A drawn resize and flip: from pictures of `h, w` pixels to `H, W`, which are `height` and `width`.

    Attributes:
        height: new height in pixels.
        width: new width in pixels.
        scale_y: new height / original height.
        scale_x: new width / original width.
        flip: mirror left and right, after the resize.
        offset: 0 for modern coordinates, 1 for legacy inclusive ones.
        resize: whose way of resizing pixels.
    """

    height: int
    width: int
    scale_y: float
    scale_x: float
    flip: bool
    offset: float
    resize: Resize = field(default_factory=Resize)

    @property
    def matrix(self) -> np.ndarray:
        """From x, y, 1 in original pixels to resized ones: float64 `[3, 3]`."""
        mirrored = [-self.scale_x, 0, self.width] if self.flip else [self.scale_x, 0, 0]
        return np.array([mirrored, [0, self.scale_y, 0], [0, 0, 1]], dtype=np.float64)

    def keep(self, boxes: np.ndarray) -> np.ndarray:
        """Keep all objects: bool `[N]` for boxes `[N, 4]`."""
        return np.ones(len(boxes), dtype=bool)

    def image(self, pixels: np.ndarray) -> torch.Tensor:
        """Resize and mirror a picture.

        Args:
            pixels: uint8 `[h, w, 3]` RGB.

        Returns:
            `[3, H, W]` of `resize.dtype`, 0..255.
        """
        image = self.resize.apply(pixels, self.height, self.width)
        return image.flip(-1) if self.flip else image

    def bitmap(self, mask: np.ndarray) -> torch.Tensor:
        """Mirror a mask and resize it to the nearest pixel below, as torchvision's references do.

        Args:
            mask: uint8 `[h, w]` of 0 and 1.

        Returns:
            bool `[H, W]`.
        """
        height, width = mask.shape
        y = np.arange(self.height) * height // self.height
        x = np.arange(self.width) * width // self.width
        if self.flip:
            x = width - 1 - x
        return torch.from_numpy(mask[y[:, None], x[None, :]]).bool()

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Carry boxes along.

        Args:
            boxes: `[N, 4]` x1, y1, x2, y2 in original pixels, continuous coordinates.

        Returns:
            float32 `[N, 4]` x1, y1, x2, y2 in resized pixels, without +1.
        """
        out = boxes.astype(np.float64)
        out *= np.array([self.scale_x, self.scale_y, self.scale_x, self.scale_y])
        if self.flip:
            # Legacy coordinates end one original pixel earlier while they are mirrored.
            last = self.offset * self.scale_x
            out[:, [0, 2]] = self.width - self.offset - out[:, [2, 0]] + last
        return out.astype(np.float32)

    def edges(self, edges: np.ndarray, offset: float | None = None) -> np.ndarray:
        """Carry line segments along.

        Args:
            edges: `[E, 4]` x1, y1, x2, y2 in original pixels.
            offset: taken from the width when mirroring, `self.offset` by default.

        Returns:
            float32 `[E, 4]` in resized pixels, point order kept.
        """
        out = edges.astype(np.float64)
        out *= np.array([self.scale_x, self.scale_y, self.scale_x, self.scale_y])
        if self.flip:
            out[:, [0, 2]] = self.width - (self.offset if offset is None else offset) - out[:, [0, 2]]
        return out.astype(np.float32)

    def keypoints(self, keypoints: np.ndarray, flip_indices: Sequence[int]) -> np.ndarray:
        """Carry keypoints along.

        A mirror takes x to width - x, as torchvision's references do, and to width - 1 - x under legacy coordinates, as
        maskrcnn-benchmark does. (detectron2 takes x to width - x after adding 0.5 to the keypoints of a file, because
        COCO's are indices of pixels.)

        Args:
            keypoints: `[N, J, 3]` x, y in original pixels, and visibility.
            flip_indices: as in `Skeleton`.

        Returns:
            float32 `[N, J, 3]` x, y in resized pixels, and visibility; all 0 where a keypoint is not labelled.
        """
        points = self.edges(keypoints[..., [0, 1, 0, 1]].reshape(-1, 4))[:, :2]  # [N * J, 2]
        return with_points(keypoints, points, flip_indices if self.flip else None)


def with_points(keypoints: np.ndarray, points: np.ndarray, flip_indices: Sequence[int] | None) -> np.ndarray:
    """Give keypoints new coordinates and, in a mirror, new places: what was a left eye is a right one.

    Args:
        keypoints: `[N, J, 3]` x, y, visibility.
        points: `[N * J, 2]`, the new x, y.
        flip_indices: as in `Skeleton`; None without a mirror.

    Returns:
        float32 `[N, J, 3]`, all 0 where a keypoint is not labelled.
    """
    out = keypoints.astype(np.float32)
    out[..., :2] = points.reshape(*keypoints.shape[:2], 2)
    out[out[..., 2] == 0] = 0
    return out if flip_indices is None else out[:, list(flip_indices)]
