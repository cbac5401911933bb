"""Resizing and flipping: each reference system's rule, drawn at random or fixed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F

SizeRule = Literal["detectron2", "maskrcnn_benchmark", "torchvision", "yolact"]
_RULES = ("detectron2", "maskrcnn_benchmark", "torchvision", "yolact")


@dataclass(frozen=True, kw_only=True, slots=True)
class Resize:
    """Resize the shorter side to a length, unless the longer side would pass a limit.

    Attributes:
        shortest: lengths of the shorter side in pixels; training draws one per image, evaluation takes the last.
        longest: limit of the longer side in pixels.
        rule: whose rounding. detectron2 rounds both sides to the nearest; maskrcnn-benchmark rounds the shorter side
            at the limit and truncates the longer; torchvision truncates both and resizes without antialiasing; yolact
            makes both sides the shorter length whatever the aspect, without antialiasing or rounding of the pixels.
    """

    shortest: tuple[int, ...] = (800,)
    longest: int = 1333
    rule: SizeRule = "detectron2"

    def __post_init__(self) -> None:
        if not self.shortest or min(self.shortest) < 1:
            raise ValueError(f"shortest must hold one or more lengths of at least 1 pixel, got {self.shortest}")
        if self.longest < 1:
            raise ValueError(f"longest must be at least 1 pixel, got {self.longest}")
        if self.rule not in _RULES:
            raise ValueError(f"rule must be one of {', '.join(_RULES)}, got {self.rule!r}")

    def output_size(self, height: int, width: int, shortest: int | None = None) -> tuple[int, int]:
        """Give the size an image is resized to.

        Args:
            height: original height.
            width: original width.
            shortest: length of the shorter side, the last of `self.shortest` by default.

        Returns:
            (height, width), at least 1 each. Sources: detectron2 `ResizeShortestEdge.get_output_shape`,
            maskrcnn-benchmark `Resize.get_size`, torchvision `_resize_image_and_masks`.
        """
        shortest = self.shortest[-1] if shortest is None else shortest
        if self.rule == "yolact":
            return shortest, shortest
        if self.rule == "detectron2":
            size = _detectron2_size(height, width, shortest, self.longest)
        elif self.rule == "maskrcnn_benchmark":
            size = _maskrcnn_benchmark_size(height, width, shortest, self.longest)
        else:
            scale = min(shortest / min(height, width), self.longest / max(height, width))
            size = int(height * scale), int(width * scale)
        return max(size[0], 1), max(size[1], 1)

    @property
    def dtype(self) -> torch.dtype:
        """Type of resized pixels: float32 under yolact's rule, which does not round them, else uint8."""
        return torch.float32 if self.rule == "yolact" else torch.uint8

    def apply(self, image: np.ndarray, height: int, width: int) -> torch.Tensor:
        """Resize a picture, bilinear, as Pillow does (within one level); torchvision's, yolact's: no antialiasing.

        Args:
            image: uint8 `[h, w, 3]`.
            height: new height.
            width: new width.

        Returns:
            `[3, height, width]` of `dtype`, 0..255.
        """
        tensor = torch.from_numpy(image).permute(2, 0, 1).to(self.dtype)
        if image.shape[:2] == (height, width):
            return tensor
        antialias = self.rule not in ("torchvision", "yolact")
        return F.interpolate(tensor[None], (height, width), mode="bilinear", align_corners=False, antialias=antialias)[
            0
        ]


class View(Protocol):
    """What was drawn for one image: how its picture, boxes and masks become those of the batch.

    Attributes:
        scale_y: resized / original height.
        scale_x: resized / original width.
    """

    @property
    def scale_y(self) -> float: ...  # noqa: D102

    @property
    def scale_x(self) -> float: ...  # noqa: D102

    def keep(self, boxes: np.ndarray) -> np.ndarray:
        """Say which objects stay: bool `[N]` for boxes `[N, 4]` in original pixels."""
        ...

    def image(self, pixels: np.ndarray) -> torch.Tensor:
        """The picture: `[3, H, W]` from uint8 `[h, w, 3]`."""
        ...

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes in resized pixels: float32 `[N, 4]` from `[N, 4]` in original pixels."""
        ...

    def edges(self, edges: np.ndarray, offset: float | None = None) -> np.ndarray:
        """Line segments in resized pixels: float32 `[E, 4]` from `[E, 4]` in original pixels."""
        ...

    def keypoints(self, keypoints: np.ndarray, flip_indices: Sequence[int]) -> np.ndarray:
        """Keypoints in resized pixels: float32 `[N, K, 3]` x, y, visibility from `[N, K, 3]` in original pixels."""
        ...

    def bitmap(self, mask: np.ndarray) -> torch.Tensor:
        """A mask at resized size: bool `[H, W]` from uint8 `[h, w]` of 0 and 1."""
        ...


class Transform(Protocol):
    """A recipe's augmentation: draws a view of each image.

    Attributes:
        resize: the sizes it makes, which say what images may share a batch.
        legacy: inclusive pixel coordinates.
    """

    @property
    def resize(self) -> Resize: ...  # noqa: D102

    @property
    def legacy(self) -> bool: ...  # noqa: D102

    def draw(
        self, height: int, width: int, random: np.random.Generator | None, boxes: np.ndarray, crowd: np.ndarray
    ) -> View:
        """Draw the view of an image with these objects; None for `random`: that of an evaluation."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """What training does to an image.

    Attributes:
        resize: the sizes to draw from.
        flip: probability of a horizontal flip.
        legacy: mirror as maskrcnn-benchmark does, whose last pixel is x + w - 1: x becomes width - 1 - x, and boxes
            of at most one pixel are left out. The batch's boxes stay free of the +1 all the same.
    """

    resize: Resize = Resize()
    flip: float = 0.5
    legacy: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip must be a probability between 0 and 1, got {self.flip}")

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
            height: original height.
            width: original width.
            random: source of randomness; None gives the last size and no flip, as evaluation wants.
            boxes: its objects, which make no difference here.
            crowd: which of them are crowd regions.

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
    """A drawn resize and flip.

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
    resize: Resize = Resize()

    def keep(self, boxes: np.ndarray) -> np.ndarray:
        """All objects stay: bool `[N]` for boxes `[N, 4]`."""
        return np.ones(len(boxes), dtype=bool)

    def image(self, pixels: np.ndarray) -> torch.Tensor:
        """Resize and mirror a picture.

        Args:
            pixels: uint8 `[h, w, 3]` RGB.

        Returns:
            `[3, height, width]` of `resize.dtype`.
        """
        image = self.resize.apply(pixels, self.height, self.width)
        return image.flip(-1) if self.flip else image

    def bitmap(self, mask: np.ndarray) -> torch.Tensor:
        """Mirror a mask and resize it to the nearest pixel below, as torchvision's references do.

        Args:
            mask: uint8 `[h, w]` of 0 and 1.

        Returns:
            bool `[height, width]`.
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
            keypoints: `[N, K, 3]` x, y in original pixels, and visibility.
            flip_indices: as in `Skeleton`.

        Returns:
            float32 `[N, K, 3]` x, y in resized pixels, and visibility; all 0 where a keypoint is not labelled.
        """
        points = self.edges(keypoints[..., [0, 1, 0, 1]].reshape(-1, 4))[:, :2]  # [N * K, 2]
        return with_points(keypoints, points, flip_indices if self.flip else None)


def with_points(keypoints: np.ndarray, points: np.ndarray, flip_indices: Sequence[int] | None) -> np.ndarray:
    """Give keypoints other coordinates, and in a mirror also other numbers: what was a left eye is a right one.

    Args:
        keypoints: `[N, K, 3]` x, y, visibility.
        points: `[N * K, 2]` the new x, y.
        flip_indices: as in `Skeleton`; None without a mirror.

    Returns:
        float32 `[N, K, 3]`, all 0 where a keypoint is not labelled.
    """
    out = keypoints.astype(np.float32)
    out[..., :2] = points.reshape(*keypoints.shape[:2], 2)
    out[out[..., 2] == 0] = 0
    return out if flip_indices is None else out[:, list(flip_indices)]


def _detectron2_size(height: int, width: int, shortest: int, longest: int) -> tuple[int, int]:
    scale = shortest * 1.0 / min(height, width)
    new_height, new_width = (shortest, scale * width) if height < width else (scale * height, shortest)
    if max(new_height, new_width) > longest:
        scale = longest * 1.0 / max(new_height, new_width)
        new_height, new_width = new_height * scale, new_width * scale
    return int(new_height + 0.5), int(new_width + 0.5)


def _maskrcnn_benchmark_size(height: int, width: int, shortest: int, longest: int) -> tuple[int, int]:
    small, large = float(min(height, width)), float(max(height, width))
    if large / small * shortest > longest:
        shortest = round(longest * small / large)
    if (width <= height and width == shortest) or (height <= width and height == shortest):
        return height, width
    if width < height:
        return int(shortest * height / width), shortest
    return shortest, int(shortest * width / height)
