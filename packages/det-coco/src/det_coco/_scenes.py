"""Drawing textured scenes with shapes and their exact masks."""

import colorsys
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from det_coco._coco_api import coco_mask

# Ids with gaps, as COCO's own.
CATEGORIES = {1: "disc", 2: "square", 4: "triangle", 7: "star", 8: "cross", 11: "ring"}
_SUPERSAMPLING = 4


@dataclass(frozen=True, slots=True)
class Thing:
    """A drawn shape.

    Attributes:
        category: category id.
        polygon: float64 `[P, 2]` x, y outline in pixels, rounded to hundredths.
        visible: bool `[h, w]` pixels that nothing covers.
        full: bool `[h, w]` pixels of the whole shape inside the image.
        whole: nothing covers it and it lies inside the image, so that the polygon is its mask.
    """

    category: int
    polygon: np.ndarray
    visible: np.ndarray
    full: np.ndarray
    whole: bool


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture and what is in it.

    Attributes:
        image: uint8 `[h, w, 3]` RGB.
        things: shapes, back to front.
        crowd: bool `[h, w]` pixels of a crowd of discs, or None.
    """

    image: np.ndarray
    things: list[Thing]
    crowd: np.ndarray | None


def draw_scene(height: int, width: int, random: np.random.Generator, *, objects: int, crowd: bool = False) -> Scene:
    """Draw a scene.

    Args:
        height: in pixels.
        width: in pixels.
        random: source of randomness.
        objects: shapes to place; fewer where there is no room.
        crowd: add a crowd of small discs.

    Returns:
        the scene; every shape keeps at least half of its pixels visible.
    """
    canvas = _background(height, width, random)
    region = None
    if crowd:
        region = _draw_crowd(canvas, random)
    full: list[np.ndarray] = []
    visible: list[np.ndarray] = []
    shapes: list[tuple[int, np.ndarray]] = []
    ids = tuple(CATEGORIES)
    for _ in range(objects):
        for _ in range(20):
            category = ids[int(random.integers(len(ids)))]
            outline = _place(CATEGORIES[category], height, width, random)
            bitmap = rasterize(outline, height, width)
            seen = [v & ~bitmap for v in visible]
            enough = all(s.sum() >= 0.5 * f.sum() for s, f in zip(seen, full, strict=True))
            if bitmap.sum() < 20 or not enough or (region is not None and (region & bitmap).any()):
                continue
            visible = [*seen, bitmap]
            full.append(bitmap)
            shapes.append((category, outline))
            _paint(canvas, outline, _colour(category, random), random)
            break
    things = []
    for (category, outline), f, v in zip(shapes, full, visible, strict=True):
        inside = outline.min() >= 0 and (outline <= [width, height]).all()
        whole = bool(inside and f.sum() == v.sum())
        things.append(Thing(category=category, polygon=outline, visible=v, full=f, whole=whole))
    image = canvas + random.normal(0, 4, canvas.shape)
    return Scene(image=image.clip(0, 255).astype(np.uint8), things=things, crowd=region)


def rasterize(outline: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bitmap of a polygon, as pycocotools draws it: bool `[h, w]`."""
    return coco_mask.decode(coco_mask.frPyObjects([outline.reshape(-1).tolist()], height, width))[:, :, 0].astype(bool)


def _place(name: str, height: int, width: int, random: np.random.Generator) -> np.ndarray:
    side = min(height, width)
    small = random.random() < 0.15
    radius = side * (random.uniform(0.045, 0.075) if small else random.uniform(0.09, 0.24))
    points = _outline(name, random) * radius
    # The middle stays inside, a part may lie outside.
    margin = 0.8 * radius
    centre = [random.uniform(margin, width - margin), random.uniform(margin, height - margin)]
    return np.round(points + centre, 2)


def _outline(name: str, random: np.random.Generator) -> np.ndarray:
    """Outline of a shape around the origin, about radius 1: float64 `[P, 2]`."""
    stretch = random.uniform(0.8, 1.0)
    turn = random.uniform(-0.35, 0.35)
    if name == "disc":
        points = _circle(28)
    elif name == "square":
        points = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * 0.85
    elif name == "triangle":
        points = np.array([(0, -1), (0.95, 0.8), (-0.95, 0.8)])
    elif name == "star":
        points = _circle(10) * np.where(np.arange(10) % 2, 0.45, 1.1)[:, None]
    elif name == "cross":
        a = 0.36
        points = np.array(
            [(-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a), (a, 1), (-a, 1), (-a, a), (-1, a), (-1, -a), (-a, -a)]
        )
    else:
        # The inner circle runs backwards and is joined by a slit without width, so one polygon has a hole.
        outer, inner = _circle(28), _circle(20)[::-1] * 0.55
        points = np.concatenate((outer, outer[:1], inner[-1:], inner))
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return (points * [1, stretch]) @ rotation.T


def _circle(count: int) -> np.ndarray:
    angle = np.arange(count) * 2 * np.pi / count - np.pi / 2
    return np.stack((np.cos(angle), np.sin(angle)), axis=1)


def _colour(category: int, random: np.random.Generator) -> np.ndarray:
    """Colour that hints at the class but does not give it away."""
    base = list(CATEGORIES).index(category) / len(CATEGORIES)
    hue = random.random() if random.random() < 0.25 else base + random.normal(0, 0.06)
    return 255 * np.array(colorsys.hsv_to_rgb(hue % 1, random.uniform(0.6, 1), random.uniform(0.6, 1)))


def _background(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    first, second = (
        255 * np.array(colorsys.hsv_to_rgb(random.random(), random.uniform(0, 0.3), random.uniform(0.15, 0.85)))
        for _ in range(2)
    )
    angle = random.uniform(0, np.pi)
    along = x * np.cos(angle) + y * np.sin(angle)
    kind = random.integers(3)
    if kind == 0:
        mix = (along - along.min()) / np.ptp(along)
    elif kind == 1:
        mix = 0.5 + 0.5 * np.sin(along * 2 * np.pi / random.uniform(8, 40))
    else:
        coarse = random.random((6, 6)).astype(np.float32)
        mix = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    mix = mix[:, :, None]
    return first * (1 - mix) + second * mix + random.normal(0, random.uniform(0, 12), (height, width, 1))


def _paint(canvas: np.ndarray, outline: np.ndarray, colour: np.ndarray, random: np.random.Generator) -> None:
    height, width = canvas.shape[:2]
    s = _SUPERSAMPLING
    # Pillow draws a vertex at the middle of the pixel it names.
    drawing = Image.new("L", (width * s, height * s))
    ImageDraw.Draw(drawing).polygon([(float(px) * s - 0.5, float(py) * s - 0.5) for px, py in outline], fill=255)
    cover = np.asarray(drawing.resize((width, height), Image.Resampling.BOX), dtype=np.float64)[:, :, None] / 255
    y, x = np.mgrid[0:height, 0:width]
    angle = random.uniform(0, np.pi)
    along = x * np.cos(angle) + y * np.sin(angle)
    kind = random.integers(3)
    if kind == 0:
        shade = np.ones((height, width))
    elif kind == 1:
        shade = 0.85 + 0.15 * np.sin(along * 2 * np.pi / random.uniform(4, 12))
    else:
        shade = 1 + random.normal(0, 0.12, (height, width))
    canvas *= 1 - cover
    canvas += cover * colour * shade[:, :, None]


def _draw_crowd(canvas: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Draw a heap of small discs and give their pixels."""
    height, width = canvas.shape[:2]
    region = np.zeros((height, width), dtype=bool)
    left, top = random.uniform(0.05, 0.5) * width, random.uniform(0.05, 0.5) * height
    for _ in range(25):
        radius = random.uniform(0.03, 0.05) * min(height, width)
        centre = [left + random.random() * 0.4 * width, top + random.random() * 0.35 * height]
        outline = np.round(_circle(16) * radius + centre, 2)
        _paint(canvas, outline, _colour(1, random), random)
        region |= rasterize(outline, height, width)
    return region
