"""What augmentation draws: pictures on a canvas, each with the map that leads there. Nothing is painted yet."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from det_coco.annotated import Annotated
from det_coco.augment.objects import seen_objects
from det_coco.augment.outlines import map_points, rectangle, visible_region
from det_coco.augment.warp import Warp
from det_coco.batches import BatchShape
from det_coco.transforms import View
from det_coco.window import FILL

Effect = Callable[[np.ndarray], np.ndarray]
"""A change of pixels that moves nothing: uint8 `[h, w, 3]` to the same."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """A picture on a canvas.

    Attributes:
        picture: the picture, with those of its objects that are in use.
        view: how it gets onto the canvas; None while nothing has been done to it.
        region: float64 `[K, 2]`, the convex part of the canvas that shows it.
        pasted: only its objects are shown, not what is around them.
        effects: changes of its pixels on the canvas.
    """

    picture: Annotated
    view: View | Warp | None
    region: np.ndarray
    pasted: bool = False
    effects: tuple[Effect, ...] = ()

    @property
    def matrix(self) -> np.ndarray:
        """From the picture to the canvas: float64 `[3, 3]`."""
        return np.eye(3) if self.view is None else self.view.matrix

    def mapped(self, matrix: np.ndarray, height: int, width: int) -> "Layer":
        """The layer on another canvas, where `matrix` `[3, 3]` leads: see `Scene.mapped`."""
        region = visible_region(map_points(matrix, self.region), height, width)
        return replace(self, view=Warp(matrix=matrix @ self.matrix), region=region)


@dataclass(frozen=True, kw_only=True, eq=False)
class Sheet:
    """Layers, later ones on top of earlier ones.

    Attributes:
        layers: the layers.
        weight: share of the sheet in the pixels of a scene.
    """

    layers: tuple[Layer, ...]
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """A canvas of `height` by `width` pixels that will be a training picture. A step makes another scene of it.

    Attributes:
        height: of the canvas, in pixels.
        width: of the canvas, in pixels.
        sheets: what is on it; pixels are the mean of the sheets by their weights.
        image_id: the data set's own id of the first picture.
        shape: how much there is room for, and what of the objects is wanted.
        another: draws a further picture of the data set, as it is before the step that asks.
        effects: changes of the pixels, in the order of their steps.
        filling: colour of the canvas where nothing is.
    """

    height: int
    width: int
    sheets: tuple[Sheet, ...]
    image_id: int
    shape: BatchShape
    another: Callable[[np.random.Generator], "Scene"] = field(repr=False)
    effects: tuple[Effect, ...] = ()
    filling: tuple[int, int, int] = (round(FILL[0]), round(FILL[1]), round(FILL[2]))

    @staticmethod
    def of(
        picture: Annotated, image_id: int, shape: BatchShape, another: Callable[[np.random.Generator], "Scene"]
    ) -> "Scene":
        """A picture as it is: see the attributes."""
        layer = Layer(picture=picture, view=None, region=rectangle(picture.height, picture.width))
        return Scene(
            height=picture.height,
            width=picture.width,
            sheets=(Sheet(layers=(layer,)),),
            image_id=image_id,
            shape=shape,
            another=another,
        )

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers of the only sheet.

        Raises:
            ValueError: pictures have been blended, and cannot be taken apart again.
        """
        if len(self.sheets) > 1:
            raise ValueError("MixUp must come after the steps that place or paste other pictures.")
        return self.sheets[0].layers

    @property
    def num_objects(self) -> int:
        """Number of objects in use, seen or not."""
        return sum(len(layer.picture) for sheet in self.sheets for layer in sheet.layers)

    @property
    def room(self) -> int:
        """Number of further objects that there is room for."""
        return self.shape.max_instances - self.num_objects

    @property
    def untouched(self) -> bool:
        """Whether nothing has been done to the picture."""
        return len(self.sheets) == 1 and len(self.layers) == 1 and self.layers[0].view is None

    def boxes(self) -> tuple[np.ndarray, np.ndarray]:
        """The objects that are seen, for steps that look at them.

        Returns:
            `[N, 4]` x1, y1, x2, y2 on the canvas, and bool `[N]`, which are crowd regions.
        """
        if self.untouched:
            return self.layers[0].picture.boxes, self.layers[0].picture.crowd
        found = [one for sheet in self.sheets for layer in sheet.layers for one in seen_objects(layer)]
        boxes = np.array([one.box for one in found]).reshape(-1, 4)
        return boxes, np.array([one.crowd for one in found], dtype=bool)

    def seen(self, view: View) -> "Scene":
        """Look at the scene through a view; the picture as it is keeps the view's own pixels and coordinates."""
        if not self.untouched:
            return self.mapped(view.matrix, view.height, view.width)
        (layer,) = self.layers
        region = visible_region(map_points(view.matrix, layer.region), view.height, view.width)
        picture = layer.picture
        keep = view.keep(picture.boxes)
        picture = picture if keep.all() else picture[np.flatnonzero(keep)]
        layer = replace(layer, picture=picture, view=view, region=region)
        return replace(self, height=view.height, width=view.width, sheets=(Sheet(layers=(layer,)),))

    def mapped(self, matrix: np.ndarray, height: int | None = None, width: int | None = None) -> "Scene":
        """Move everything; what leaves the canvas is gone for later steps.

        Args:
            matrix: `[3, 3]`, from x, y, 1 on this canvas to the next, times a factor; convex on this canvas.
            height: of the next canvas, this one's by default.
            width: of the next canvas, this one's by default.
        """
        height, width = self.height if height is None else height, self.width if width is None else width
        sheets = tuple(
            replace(sheet, layers=tuple(layer.mapped(matrix, height, width) for layer in sheet.layers))
            for sheet in self.sheets
        )
        return replace(self, height=height, width=width, sheets=sheets)

    def changed(self, effect: Effect) -> "Scene":
        """Change pixels: `effect` gets uint8 `[h, w, 3]` once everything is where it belongs, and gives the same."""
        return replace(self, effects=(*self.effects, effect))

    def with_sheets(self, *sheets: Sheet) -> "Scene":
        """The same canvas with other sheets."""
        return replace(self, sheets=sheets)

    def finished(self) -> "Scene":
        """The same scene with its effects in each layer, so that they do not reach layers that come after them."""
        if not self.effects:
            return self
        sheets = [
            replace(sheet, layers=tuple(replace(one, effects=one.effects + self.effects) for one in sheet.layers))
            for sheet in self.sheets
        ]
        return replace(self, sheets=tuple(sheets), effects=())

    def on_top(self, *layers: Layer) -> "Scene":
        """The scene with further layers on top of every sheet."""
        scene = self.finished()
        return scene.with_sheets(*[replace(sheet, layers=sheet.layers + layers) for sheet in scene.sheets])
