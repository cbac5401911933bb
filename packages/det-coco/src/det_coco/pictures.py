"""Drawing boxes, masks and names on pictures."""

import colorsys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from det_coco.drawn import Drawn
from det_coco.errors import DataError
from det_coco.fonts import font_for, legible
from det_coco.outputs import whole_file
from det_coco.rle import decode_rle

Colour = tuple[int, int, int]


def draw(
    image: np.ndarray,
    drawn: Drawn,
    class_names: Sequence[str] | Mapping[int, str],
    *,
    min_side: int = 480,
    boxes: bool = True,
) -> Image.Image:
    """Draw objects on a picture.

    Masks are translucent with an outline, a colour per class varied per object; keypoints that are labelled but hidden
    are hollow; names keep clear of each other where there is room. Small pictures are enlarged first, so that the text
    is legible.

    Args:
        image: uint8 `[h, w, 3]` RGB.
        drawn: the objects, in the pixels of `image`.
        class_names: names by contiguous label, or category id -> name in the same order, as `CocoIndex.categories`. A
            name in a script for which there is no font is replaced by its id (or label).
        min_side: the longer side is enlarged by a whole factor to at least this many pixels.
        boxes: draw the boxes' outlines; names are written in any case.

    Returns:
        an RGB picture.
    """
    height, width = image.shape[:2]
    factor = max(1, -(-min_side // max(height, width)))
    # Large objects first, so that small ones on top of them stay visible.
    area = (drawn.boxes[:, 2] - drawn.boxes[:, 0]) * (drawn.boxes[:, 3] - drawn.boxes[:, 1])  # [N]
    order = np.argsort(-area, kind="stable")
    colours = [class_colour(int(label), n) for n, label in enumerate(drawn.labels)]
    canvas = np.array(image)
    if factor > 1:
        canvas = np.array(Image.fromarray(image).resize((width * factor, height * factor), Image.Resampling.BICUBIC))
    _blend_masks(canvas, drawn, order, colours, factor)
    picture = Image.fromarray(canvas)
    pen = ImageDraw.Draw(picture)
    size = _text_size(*picture.size)
    for n in order if boxes else ():
        x1, y1, x2, y2 = (float(v) * factor for v in drawn.boxes[n])
        corners = (x1, y1, max(x2 - 1, x1), max(y2 - 1, y1))
        pen.rectangle(corners, outline=colours[n], width=max(1, size // 8))
    if drawn.keypoints is not None:
        for n in order:
            radius = min(max(2.0, 0.02 * factor * float(max(area[n], 0)) ** 0.5), size / 4)
            points = drawn.keypoints[n] * [factor, factor, 1]
            _draw_skeleton(pen, points, drawn.limbs, colours[n], radius, hollow=drawn.scores is None)
    taken: list[tuple[float, float, float, float]] = []
    for n in order[::-1]:
        box = tuple(float(v) * factor for v in drawn.boxes[n])
        _write(pen, _label(drawn, n, class_names), box, colours[n], size, picture.size, taken)
    return picture


def side_by_side(
    image: np.ndarray,
    ground_truth: Drawn,
    prediction: Drawn,
    class_names: Sequence[str] | Mapping[int, str],
    *,
    min_side: int = 480,
) -> Image.Image:
    """Draw the ground truth at the left and the prediction at the right of one picture.

    Args:
        image: uint8 `[h, w, 3]` RGB.
        ground_truth: what to draw at the left, in the pixels of `image`.
        prediction: what to draw at the right.
        class_names: as for `draw`.
        min_side: as for `draw`.

    Returns:
        an RGB picture, with a heading above each half.
    """
    headings = (f"ground truth: {_count(ground_truth)}", f"prediction: {_count(prediction)}")
    drawn = zip(headings, (ground_truth, prediction), strict=True)
    return in_a_row(image, dict(drawn), class_names, min_side=min_side)


def in_a_row(
    image: np.ndarray,
    drawn: Mapping[str, Drawn],
    class_names: Sequence[str] | Mapping[int, str],
    *,
    min_side: int = 480,
) -> Image.Image:
    """Draw different objects on one picture each, from left to right.

    Args:
        image: uint8 `[h, w, 3]` RGB.
        drawn: by the heading above it, what to draw, in the pixels of `image`.
        class_names: as for `draw`.
        min_side: as for `draw`.

    Returns:
        an RGB picture.
    """
    parts = [draw(image, objects, class_names, min_side=min_side) for objects in drawn.values()]
    width, height = parts[0].size
    size = _text_size(width, height)
    head, gap = size * 2, max(4, size // 3)
    out = Image.new("RGB", (len(parts) * (width + gap) - gap, height + head), "white")
    pen = ImageDraw.Draw(out)
    for n, (part, heading) in enumerate(zip(parts, drawn, strict=True)):
        left = n * (width + gap)
        out.paste(part, (left, head))
        pen.text((left + gap, head / 2), heading, fill="black", font=font_for(heading, size), anchor="lm")
    return out


def save_picture(picture: Image.Image, path: str | Path) -> Path:
    """Save a picture in the format its suffix names (JPEG, PNG).

    Args:
        picture: the picture.
        path: the file; its folder is made.

    Returns:
        the path.

    Raises:
        DataError: it cannot be written, or its suffix names no format for pictures.
    """
    path = Path(path)
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind not in Image.SAVE:
        raise DataError(f"{path} cannot be written: give it the suffix .png or .jpg.")
    with whole_file(path) as file:
        picture.save(file, kind, quality=92)
    return path


def _count(drawn: Drawn) -> str:
    count = len(drawn.labels)
    return f"{count} object{'' if count == 1 else 's'}"


def _label(drawn: Drawn, n: int, class_names: Sequence[str] | Mapping[int, str]) -> str:
    """Say what object n is: its class, or the class's number where no font shows the name, and its score."""
    label = int(drawn.labels[n])
    numbered = class_names.items() if isinstance(class_names, Mapping) else enumerate(class_names)
    number, name = list(numbered)[label]
    crowd = " (crowd)" if drawn.crowd is not None and drawn.crowd[n] else ""
    score = "" if drawn.scores is None else f" {drawn.scores[n]:.2f}"
    return legible(name, f"class {number}") + crowd + score


def class_colour(label: int, instance: int = 0) -> Colour:
    """The strong colour that objects of a class are drawn in: hue by class, spread by the golden ratio.

    Args:
        label: contiguous class 0 .. C - 1.
        instance: number of the object, by which its brightness varies a little.

    Returns:
        red, green, blue, 0 to 255.
    """
    hue = (0.02 + label * 0.618034) % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85 - 0.2 * (instance % 2), 1.0 - 0.12 * (instance % 3))
    return int(255 * red), int(255 * green), int(255 * blue)


def _blend_masks(canvas: np.ndarray, drawn: Drawn, order: np.ndarray, colours: Sequence[Colour], factor: int) -> None:
    if drawn.masks is None:
        return
    for n in order:
        mask = drawn.masks[n]
        if isinstance(mask, Mapping):
            mask = decode_rle(mask)
        if factor > 1:
            mask = mask.repeat(factor, axis=0).repeat(factor, axis=1)
        _blend(canvas, mask, colours[n], crowd=drawn.crowd is not None and bool(drawn.crowd[n]))


def _draw_skeleton(
    pen: ImageDraw.ImageDraw,
    keypoints: np.ndarray,
    limbs: Iterable[tuple[int, int]],
    colour: Colour,
    radius: float,
    *,
    hollow: bool,
) -> None:
    """Draw limbs, then joints on them, each with a border that shows on any picture.

    Args:
        pen: draws on the picture.
        keypoints: `[J, 3]` x, y in the picture's pixels, and visibility.
        limbs: pairs of keypoints.
        colour: of the object.
        radius: of a joint in pixels.
        hollow: draw keypoints of visibility 1 hollow.
    """
    line = max(2, round(radius))
    for fill, width in (("black", line + 2), (colour, line)):
        for a, b in limbs:
            if keypoints[a, 2] > 0 and keypoints[b, 2] > 0:
                pen.line((*keypoints[a, :2], *keypoints[b, :2]), fill=fill, width=width)
    for x, y, visibility in keypoints:
        if visibility > 0:
            disc = (x - radius, y - radius, x + radius, y + radius)
            inside, border = ("white", colour) if hollow and visibility == 1 else (colour, "white")
            pen.ellipse(disc, fill=inside, outline=border, width=max(1, round(radius / 3)))


def _blend(canvas: np.ndarray, mask: np.ndarray, colour: Colour, *, crowd: bool) -> None:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return
    # Most masks are much smaller than the picture.
    part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    canvas, mask = canvas[part], mask[part]
    inner = _eroded(mask)
    outline = mask & ~inner
    if crowd:
        # Hatched, so that it does not look like one object.
        y, x = np.ogrid[: mask.shape[0], : mask.shape[1]]
        inner = inner & ((x + y) % 8 < 3)
    canvas[inner] = (0.55 * canvas[inner] + 0.45 * np.array(colour)).astype(np.uint8)
    canvas[outline] = colour


def _eroded(mask: np.ndarray) -> np.ndarray:
    """Pixels of a mask whose four neighbours are in it; beyond the border counts as outside."""
    padded = np.pad(mask, 1)
    return mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]


def _write(
    pen: ImageDraw.ImageDraw,
    text: str,
    box: tuple[float, ...],
    colour: Colour,
    text_size: int,
    size: tuple[int, int],
    taken: list[tuple[float, float, float, float]],
) -> None:
    font = font_for(text, text_size)
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    width, height = right - left + 4, bottom - top + 4
    # Above the box, inside at its top, inside at its bottom, below.
    places = [(box[0], box[1] - height), (box[0], box[1]), (box[0], box[3] - height), (box[0], box[3])]
    spots = []
    for x, y in places:
        x, y = min(max(x, 0), size[0] - width), min(max(y, 0), size[1] - height)
        spots.append((x, y, x + width, y + height))
    spot = next((s for s in spots if not any(_overlap(s, t) for t in taken)), spots[0])
    taken.append(spot)
    pen.rectangle(spot, fill=colour)
    bright = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 140
    pen.text((spot[0] + 2 - left, spot[1] + 2 - top), text, fill="black" if bright else "white", font=font)


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _text_size(width: int, height: int) -> int:
    return int(min(max(max(width, height) / 45, 12), 40))
