"""Steps that take further pictures of the data set, drawn from the same random numbers."""

from dataclasses import dataclass, replace

import numpy as np

from det_coco.augment.objects import seen_objects
from det_coco.augment.scene import Scene, Sheet


@dataclass(frozen=True, kw_only=True)
class Mosaic:
    """Four pictures around a random point (Bochkovskiy et al., "YOLOv4", 2020; sizes and places as in YOLOX).

    Each is fitted into a tile of `size`; the canvas has twice that size, and the point lies in its middle half. A
    picture whose objects there is no room for leaves its quarter empty.

    Attributes:
        size: (height, width) that each picture is fitted into.
    """

    size: tuple[int, int] = (640, 640)

    def output_sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Twice the size."""
        del height, width
        return [(2 * self.size[0], 2 * self.size[1])]

    def __call__(self, scene: Scene, random: np.random.Generator) -> Scene:
        """Draw the point and the three other pictures."""
        height, width = self.size
        y, x = (int(random.uniform(0.5 * side, 1.5 * side)) for side in self.size)
        room, layers = scene.shape.max_instances, []
        for place in range(4):
            tile = scene if place == 0 else scene.another(random)
            if tile.num_objects > room:
                continue
            room -= tile.num_objects
            factor = min(height / tile.height, width / tile.width)
            h, w = round(tile.height * factor), round(tile.width * factor)
            top, left = (y - h if place < 2 else y), (x - w if place % 2 == 0 else x)
            matrix = np.diag([w / tile.width, h / tile.height, 1.0])
            matrix[:2, 2] = left, top
            layers += tile.mapped(matrix, 2 * height, 2 * width).finished().layers
        canvas = replace(scene, height=2 * height, width=2 * width, effects=())
        return canvas.with_sheets(Sheet(layers=tuple(layers)))


@dataclass(frozen=True, kw_only=True)
class MixUp:
    """The mean of two pictures, with the objects of both (Zhang et al., "Bag of freebies for object detection", 2019).

    Attributes:
        alpha: both parameters of the beta distribution that the weight of the first picture is drawn from.
    """

    alpha: float = 1.5

    def __post_init__(self) -> None:
        if self.alpha <= 0:
            raise ValueError(f"alpha must be positive, got {self.alpha}.")

    def __call__(self, scene: Scene, random: np.random.Generator) -> Scene:
        """Draw the weight and the other picture, of which nothing is taken where there is no room for its objects."""
        weight = float(random.beta(self.alpha, self.alpha))
        other = scene.another(random)
        if other.num_objects > scene.room:
            return scene
        other = other.mapped(np.eye(3), scene.height, scene.width).finished()
        scene = scene.finished()
        first, second = Sheet(layers=scene.layers, weight=weight), Sheet(layers=other.layers, weight=1 - weight)
        return scene.with_sheets(first, second)


@dataclass(frozen=True, kw_only=True)
class CopyPaste:
    """Objects of another picture, pasted where they are there (Ghiasi et al., "Simple Copy-Paste", 2021).

    Any number of its objects is drawn, as far as there is room for them; crowd regions, and objects without a mask, are
    not pasted. Masks and boxes of what is hidden in part become those of the rest; what is hidden wholly is left out.
    Edges are not blended, which the paper finds to make no difference.
    """

    def __call__(self, scene: Scene, random: np.random.Generator) -> Scene:
        """Draw the other picture and which of its objects are pasted."""
        other = scene.another(random)
        layers = other.mapped(np.eye(3), scene.height, scene.width).finished().layers
        seen = [(place, one.slot) for place, layer in enumerate(layers) for one in seen_objects(layer) if one.outlines]
        count = min(int(random.integers(len(seen) + 1)), scene.room)
        chosen = sorted(seen[int(n)] for n in random.permutation(len(seen))[: max(count, 0)])
        pasted = []
        for place, layer in enumerate(layers):
            slots = np.array([slot for at, slot in chosen if at == place], dtype=np.int64)
            if slots.size:
                pasted.append(replace(layer, picture=layer.picture[slots], pasted=True))
        base = scene.finished()
        return base.with_sheets(Sheet(layers=base.layers + tuple(pasted)))
