"""Examples as pictures within a page: the truth, and the detections beside it."""

from collections.abc import Mapping

import numpy as np
from PIL import Image

from det_coco.annotations import CocoIndex
from det_coco.detections import Detections
from det_coco.drawn import Drawn, ground_truth_of
from det_coco.errors import DataError
from det_coco.images import load_image
from det_coco.page import Html, line, link, picture, text
from det_coco.pictures import in_a_row
from det_coco.report.gallery import Example
from det_coco.rle import decode_rle

_SIDE = 420
"""Pixels of the longer side up to which a picture is drawn."""


def draw_example(index: CocoIndex, results: Mapping[str, Detections], example: Example, *, masks: bool) -> Html:
    """Draw an example, with a link to the file and the ids of the annotations.

    Args:
        index: the split.
        results: by the heading above the picture, detections of its images.
        example: one of them.
        masks: whether to draw masks too.
    """
    path = index.path(example.position)
    ids = ", ".join(map(str, example.annotations))
    caption = line(
        example.words, link(path, str(index.file_names[example.position])), *([f"annotation {ids}"] if ids else [])
    )
    size = int(index.heights[example.position]), int(index.widths[example.position])
    try:
        image = load_image(path, size=size)
    except DataError as error:
        return text(line(caption, str(error)))
    x1, y1, x2, y2 = region = example.region or (0, 0, size[1], size[0])
    scale = min(1.0, _SIDE / max(x2 - x1, y2 - y1))
    shape = max(1, round((x2 - x1) * scale)), max(1, round((y2 - y1) * scale))
    shown = Image.fromarray(image[y1:y2, x1:x2]).resize(shape, Image.Resampling.LANCZOS)
    drawn = {"truth": ground_truth_of(index, int(index.image_ids[example.position]))}
    for (name, detections), rows in zip(results.items(), example.detections, strict=True):
        drawn[name] = _drawn(index, detections, rows, masks=masks)
    parts = {name: _within(objects, region, shape, masks=masks) for name, objects in drawn.items()}
    row = in_a_row(np.asarray(shown), parts, index.categories, min_side=240)
    return picture(row, caption, width=450 * len(parts))


def _drawn(index: CocoIndex, detections: Detections, rows: np.ndarray, *, masks: bool) -> Drawn:
    part = detections[rows]
    labels = {category: label for label, category in enumerate(index.category_ids)}
    boxes = part.boxes.copy()
    boxes[:, 2:] += boxes[:, :2]
    return Drawn(
        boxes=boxes,
        labels=np.array([labels[category] for category in part.category_ids.tolist()], dtype=np.int64),
        scores=part.scores,
        masks=np.array([decode_rle(rle) for rle in part.rles()]) if masks and len(part) else None,
    )


def _within(drawn: Drawn, region: tuple[int, int, int, int], shape: tuple[int, int], *, masks: bool) -> Drawn:
    """What lies in a part of a picture, in the pixels of that part resized to a width and height."""
    first, last = np.array(region[:2]), np.array(region[2:])
    boxes = np.asarray(drawn.boxes, dtype=np.float64)
    inside = ((boxes[:, :2] < last) & (boxes[:, 2:] > first)).all(axis=1)
    corners = boxes[inside].reshape(-1, 2, 2).clip(first, last) - first
    bitmaps = None
    if masks and isinstance(drawn.masks, np.ndarray):
        # The pixel in which the middle of each pixel of the resized part lies.
        columns, rows = (
            start + ((np.arange(count) + 0.5) * (stop - start) / count).astype(np.int64)
            for start, stop, count in zip(first, last, shape, strict=True)
        )
        bitmaps = drawn.masks[inside][:, rows[:, None], columns]
    return Drawn(
        boxes=(corners * (np.array(shape) / (last - first))).reshape(-1, 4),
        labels=drawn.labels[inside],
        scores=None if drawn.scores is None else drawn.scores[inside],
        masks=bitmaps,
        crowd=None if drawn.crowd is None else drawn.crowd[inside],
    )
