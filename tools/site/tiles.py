"""What tiles find in a big picture: the picture of docs/use.md, and its figures."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from det_coco import CocoIndex, default_splits, load_split, synthetic_dataset
from det_models import Detections, load
from det_ops import box_iou

_SIDE, _COLUMNS = 160, 10
_SHOWN = (0, 0, 480, 480)


def tiles_picture(run: Path, folder: Path) -> None:
    """Write `tiles.png`, a part of a mosaic as a whole and in tiles, and `tiles.md`, what was found in all of it.

    Args:
        run: of Mask R-CNN on the embedded scenes.
        folder: to write into.
    """
    root = synthetic_dataset()
    mosaic, boxes, names = _mosaic(load_split(root, default_splits(root)[1]))
    detector = load(run / "checkpoints" / "best.pt")
    whole = detector.predict(mosaic, min_score=0.5)
    tiled = detector.predict(mosaic, min_score=0.5, tile=_SIDE)
    sheet = Image.new("RGB", (2 * _SHOWN[2] + 16, _SHOWN[3]), "white")
    for number, found in enumerate((whole, tiled)):
        sheet.paste(found.draw(mosaic, show=("masks", "boxes")).crop(_SHOWN), (number * (_SHOWN[2] + 16), 0))
    sheet.save(folder / "tiles.png")
    right, there = agreeing(whole, boxes, names).any(1).sum(), agreeing(tiled, boxes, names).any(0).sum()
    figures = (
        "![A mosaic of scenes: nothing is found in the whole, much in its tiles](pictures/tiles.png)\n\n"
        f"This is a part of a mosaic of {mosaic.width} x {mosaic.height} pixels. In the whole picture (left) there are "
        f"{len(whole)} detections, {right} of them right. With `--tile {_SIDE}` (right) there are {len(tiled)}, which "
        f"find {there} of the {len(boxes)} objects (IoU above 0.5)."
    )
    (folder / "tiles.md").write_text(figures, encoding="utf-8")


def _mosaic(index: CocoIndex) -> tuple[Image.Image, np.ndarray, list[str]]:
    """All pictures of a split side by side, with the boxes [N, 4] and the classes of their objects."""
    rows = -(-len(index) // _COLUMNS)
    mosaic, boxes, names = Image.new("RGB", (_COLUMNS * _SIDE, rows * _SIDE)), [], []
    classes = list(index.categories.values())
    for position in range(len(index)):
        corner = position % _COLUMNS * _SIDE, position // _COLUMNS * _SIDE
        mosaic.paste(Image.fromarray(index.image(position)), corner)
        objects = index.instances(position)
        objects = np.arange(objects.start, objects.stop)[~index.crowd[objects]]
        boxes.append(index.boxes[objects] + np.array(corner * 2, dtype=np.float32))
        names += [classes[label] for label in index.labels[objects]]
    return mosaic, np.concatenate(boxes), names


def agreeing(found: Detections, boxes: np.ndarray, names: list[str]) -> np.ndarray:
    """Which detections [K, N] are of which objects: of their class, with an IoU above 0.5."""
    overlaps = box_iou(torch.as_tensor(found.boxes), torch.as_tensor(boxes)).numpy()
    return (overlaps > 0.5) & (np.array(found.names, dtype=object)[:, None] == np.array(names, dtype=object))
