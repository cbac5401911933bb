"""Steps that move the picture: each gives one projective map, and maps are multiplied."""

from dataclasses import dataclass

import numpy as np

from det_coco.augment.scene import Scene


@dataclass(frozen=True, kw_only=True)
class Flip:
    """A mirror.

    Attributes:
        probability: of a mirror.
        vertical: turn upside down rather than left to right.
    """

    probability: float = 0.5
    vertical: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability must be between 0 and 1, got {self.probability}.")

    def __call__(self, scene: Scene, random: np.random.Generator) -> Scene:
        """Draw whether there is one."""
        if random.random() >= self.probability:
            return scene
        if self.vertical:
            return scene.mapped(np.array([[1, 0, 0], [0, -1, scene.height], [0, 0, 1.0]]))
        return scene.mapped(np.array([[-1, 0, scene.width], [0, 1, 0], [0, 0, 1.0]]))


@dataclass(frozen=True, kw_only=True)
class ScaleJitter:
    """Large-scale jitter: the picture, resized at random, on a canvas of one size, or cut to it.

    The picture fitted into the canvas is scaled by a factor; what is larger than the canvas is cut at a random place,
    what is smaller lies at its upper left. Sizes, places and pixels are those of detectron2's `ResizeScale` and
    `FixedSizeCrop` (Ghiasi et al., "Simple Copy-Paste", 2021, who draw factors of 0.1 to 2).

    Attributes:
        size: (height, width) of the canvas in pixels.
        scale: least and greatest factor.
    """

    size: tuple[int, int] = (1024, 1024)
    scale: tuple[float, float] = (0.1, 2.0)

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise ValueError(f"size must be at least 1 pixel, got {self.size}.")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale must be two positive factors, the lesser first, got {self.scale}.")

    def output_sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """The canvas."""
        del height, width
        return [self.size]

    def __call__(self, scene: Scene, random: np.random.Generator) -> Scene:
        """Draw the factor and the place."""
        target = random.uniform(*self.scale) * np.array(self.size)
        old = np.array([scene.height, scene.width])
        new = np.maximum(np.round(old * np.minimum(*(target / old))), 1)  # [2] height, width
        offset = np.round(np.maximum(new - self.size, 0) * random.uniform(0, 1))
        (scale_y, scale_x), (top, left) = new / old, offset
        return scene.mapped(np.array([[scale_x, 0, -left], [0, scale_y, -top], [0, 0, 1]]), *self.size)


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A window of the picture, of the same aspect, so that what groups images by their sizes stays true.

    Attributes:
        share: least and greatest share of both sides.
    """

    share: tuple[float, float] = (0.5, 1.0)

    def __post_init__(self) -> None:
        if not 0 < self.share[0] <= self.share[1] <= 1:
            raise ValueError(f"share must be two numbers of up to 1, the lesser first, got {self.share}.")

    def __call__(self, scene: Scene, random: np.random.Generator) -> Scene:
        """Draw the window."""
        share = random.uniform(*self.share)
        height, width = max(round(scene.height * share), 1), max(round(scene.width * share), 1)
        top, left = (int(random.integers(room + 1)) for room in (scene.height - height, scene.width - width))
        return scene.mapped(np.array([[1.0, 0, -left], [0, 1, -top], [0, 0, 1]]), height, width)


@dataclass(frozen=True, kw_only=True)
class MultiScaleCrop:
    """A window of a number of pixels, of the picture resized to one of several lengths: DETR's, before its resize.

    Carion et al., "End-to-End Object Detection with Transformers", 2020, and mmdetection's `ms-crop` schedules take it
    for half of the images (`Maybe(0.5, MultiScaleCrop())`). There a window may stand upright in a picture that lies;
    here it lies or stands as the picture does, so that what groups images by orientation stays true.

    Attributes:
        shortest: lengths of the picture's shorter side, in pixels.
        sides: least and greatest length of a side of the window, in pixels, where the picture has as many.
    """

    shortest: tuple[int, ...] = (400, 500, 600)
    sides: tuple[int, int] = (384, 600)

    def __post_init__(self) -> None:
        if not self.shortest or min(self.shortest) < 1:
            raise ValueError(f"shortest must be at least one length of at least 1 pixel, got {self.shortest}.")
        if not 0 < self.sides[0] <= self.sides[1]:
            raise ValueError(f"sides must be two lengths, the lesser first, got {self.sides}.")

    def output_sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """The squarest and the longest window of each length, between which all others lie."""
        found = []
        for shortest in self.shortest:
            resized = self._resized(height, width, shortest)
            least, greatest = (np.minimum(resized, side) for side in self.sides)  # [2] height, width
            longest = (least[0], greatest[1]) if width > height else (greatest[0], least[1])
            found += [(int(size[0]), int(size[1])) for size in (least, longest, greatest)]
        return list(dict.fromkeys(found))

    def __call__(self, scene: Scene, random: np.random.Generator) -> Scene:
        """Draw the length and the window."""
        old = np.array([scene.height, scene.width])
        new = self._resized(scene.height, scene.width, int(random.choice(self.shortest)))
        least, greatest = (np.minimum(new, side) for side in self.sides)
        size = random.integers(least, greatest + 1)  # [2] height, width
        size = np.sort(size) if scene.width > scene.height else np.sort(size)[::-1]
        top, left = random.integers(new - size + 1)
        (scale_y, scale_x), (height, width) = new / old, map(int, size)
        return scene.mapped(np.array([[scale_x, 0, -left], [0, scale_y, -top], [0, 0, 1]]), height, width)

    def _resized(self, height: int, width: int, shortest: int) -> np.ndarray:
        size = np.array([height, width])
        return np.maximum((size * (shortest / size.min()) + 0.5).astype(np.int64), 1)


@dataclass(frozen=True, kw_only=True)
class Rotation:
    """A turn about the middle of the canvas, which keeps its size.

    Attributes:
        degrees: greatest angle, either way.
    """

    degrees: float = 10.0

    def __call__(self, scene: Scene, random: np.random.Generator) -> Scene:
        """Draw the angle."""
        angle = np.deg2rad(random.uniform(-self.degrees, self.degrees))
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        middle = np.array([scene.width / 2, scene.height / 2])
        matrix = np.eye(3)
        matrix[:2, :2], matrix[:2, 2] = turn, middle - turn @ middle
        return scene.mapped(matrix)


@dataclass(frozen=True, kw_only=True)
class Perspective:
    """A change of perspective: each corner of the canvas moves inwards.

    Attributes:
        distortion: greatest way of a corner, as a share of half a side.
    """

    distortion: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.distortion < 1:
            raise ValueError(f"distortion must be at least 0 and less than 1, got {self.distortion}.")

    def __call__(self, scene: Scene, random: np.random.Generator) -> Scene:
        """Draw where the corners go."""
        size = np.array([scene.width, scene.height], dtype=np.float64)
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * size
        inwards = np.sign(size / 2 - corners)
        moved = corners + inwards * random.uniform(0, self.distortion, (4, 2)) * size / 2
        return scene.mapped(_homography(corners, moved))


def _homography(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The projective map `[3, 3]` that takes four points `[4, 2]` to four others."""
    rows = []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    return np.append(np.linalg.solve(np.array(rows), target.reshape(-1)), 1).reshape(3, 3)
