"""Writing splits as YOLO's label files, in Ultralytics' layout."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np

from det_coco._coco_api import coco_mask
from det_coco.annotations import CocoIndex
from det_coco.mask_codec import instance_bitmap
from det_coco.outlines import join_outlines, trace_outlines

Parts = Literal["boxes", "masks", "keypoints"]
# What a data.yaml calls the splits, and what others do.
_SPLITS = {
    "train": re.compile(r"train(ing)?\d*"),
    "val": re.compile(r"val(id(ation)?)?\d*"),
    "test": re.compile(r"test(ing)?\d*"),
}


def write_yolo(index: CocoIndex, names: Sequence[str], out: Path, split: str, *, parts: Parts) -> Counter[str]:
    """Write the labels of one split as `<out>/labels/<split>/<name>.txt`, one file for each image.

    A row is `class x y width height`, centre and size, with keypoints also `x y visibility` of each; or, for masks,
    `class x y x y ...`, an outline. All are fractions of the picture's width and height.

    Args:
        index: the split.
        names: I names of the pictures in `<out>/images/<split>`.
        out: the data set's folder.
        split: the split's name.
        parts: what is written of an object.

    Returns:
        how many things of each kind could not be kept.
    """
    lost = _lost(index, parts)
    for position, name in enumerate(names):
        size = np.array([index.widths[position], index.heights[position]], dtype=np.float64)
        instances = np.arange(len(index.labels))[index.instances(position)]
        lines = []
        for row in instances[~index.crowd[instances]].tolist():
            outline = _outline(index, row, position, lost) if parts == "masks" else None
            points = _centre_and_size(_corners(index, row, size)) if outline is None else outline
            numbers = (points / size).ravel().tolist()
            if parts == "keypoints":
                numbers += (index.keypoints[row] / [*size, 1]).ravel().tolist()
            lines.append(" ".join([str(index.labels[row]), *(f"{value:.10g}" for value in numbers)]) + "\n")
        file = out / "labels" / split / Path(name).with_suffix(".txt")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(lines), encoding="utf-8")
    return lost


def write_data_yaml(index: CocoIndex, splits: Iterable[str], out: Path, *, parts: Parts) -> None:
    """Write `<out>/data.yaml`, which names the folders of the splits, the classes and the keypoints.

    Args:
        index: of one of the splits.
        splits: names of the splits; the keys are Ultralytics' `train`, `val` and `test` where a name means one.
        out: the data set's folder.
        parts: what was written of an object.
    """
    # Text in quotes as JSON has them is YAML as well.
    folders: dict[str, str] = {}
    for split in splits:
        key = next((key for key, names in _SPLITS.items() if names.fullmatch(split)), split)
        folders[split if key in folders else key] = f"images/{split}"
    lines = [f"{key}: {json.dumps(folder, ensure_ascii=False)}\n" for key, folder in folders.items()]
    names = [f"  {label}: {json.dumps(name, ensure_ascii=False)}\n" for label, name in enumerate(index.class_names)]
    if parts == "keypoints" and index.skeleton is not None:
        keypoints = json.dumps(index.skeleton.names, ensure_ascii=False)
        lines += [f"kpt_shape: [{len(index.skeleton.names)}, 3]\n", f"flip_idx: {list(index.skeleton.flip_indices)}\n"]
        lines += ["kpt_names:\n", *(f"  {label}: {keypoints}\n" for label in range(index.num_classes))]
    text = "".join(["# No `path`: the folders are beside this file.\n", *lines, "names:\n", *names])
    (out / "data.yaml").write_text(text, encoding="utf-8")


def _lost(index: CocoIndex, parts: Parts) -> Counter[str]:
    """Count what no label file holds."""
    crowd = "crowd regions and ignored objects (left out, so that YOLO learns background there)"
    with_mask = int((~index.crowd & (index.polygon_counts > 0)).sum())
    labelled = int((index.keypoints[~index.crowd, :, 2] > 0).sum())
    return Counter(
        {
            crowd: int(index.crowd.sum()),
            "masks (the option --masks writes them instead of boxes)": 0 if parts == "masks" else with_mask,
            "keypoints (the option --keypoints writes them beside boxes)": 0 if parts == "keypoints" else labelled,
            "image ids": len(index),
            "annotation ids": index.num_instances,
            "areas": index.num_instances,
        }
    )


def _corners(index: CocoIndex, row: int, size: np.ndarray) -> np.ndarray:
    """Corners of a box as in the file, clipped to the image: float64 `[2, 2]` x, y."""
    x, y, width, height = index.file_boxes[row]
    return np.array([[x, y], [x + width, y + height]]).clip(0, size)


def _centre_and_size(corners: np.ndarray) -> np.ndarray:
    return np.stack((corners.mean(axis=0), corners[1] - corners[0]))


def _outline(index: CocoIndex, row: int, position: int, lost: Counter[str]) -> np.ndarray:
    """Outline of a mask in pixels, of the box where there is no mask: float64 `[P, 2]` x, y."""
    size = np.array([index.widths[position], index.heights[position]], dtype=np.float64)
    outlines = _polygons(index, row)
    joined = join_outlines(outlines) if outlines else np.zeros((0, 2))
    inside = bool(outlines) and (joined >= 0).all() and (joined <= size).all()
    if inside and len(outlines) == 1:
        return joined
    bitmap = instance_bitmap(index, row, int(size[1]), int(size[0]))
    if not bitmap.any():
        lost["objects without mask (their box is written as an outline)"] += 1
        (left, top), (right, bottom) = _corners(index, row, size)
        return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    # Polygons that overlap would cancel out where they do.
    if not inside or not np.array_equal(_bitmap(joined, size), bitmap):
        outlines = trace_outlines(bitmap)
        joined = join_outlines(outlines)
    if len(outlines) > 1:
        lost["masks with holes or several parts (written as one outline, joined by bridges of no width)"] += 1
    return joined


def _polygons(index: CocoIndex, row: int) -> list[np.ndarray]:
    masks = index.masks
    bounds = masks.polygon_points[masks.instance_polygons[row] : masks.instance_polygons[row + 1] + 1]
    return [masks.points[first:last] for first, last in pairwise(bounds)]


def _bitmap(points: np.ndarray, size: np.ndarray) -> np.ndarray:
    return coco_mask.decode(coco_mask.frPyObjects([points.ravel().tolist()], int(size[1]), int(size[0])))[..., 0]
