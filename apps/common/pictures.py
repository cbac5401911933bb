"""Drawings of detections, alone or beside the truth."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from det_coco import CocoIndex, detections_of, draw, load_image, save_picture, side_by_side, truth_of

MIN_SCORE = 0.5


def draw_beside_truth(index: CocoIndex, rows: Sequence[Mapping[str, Any]], folder: Path, count: int) -> None:
    """Draw the first images of a split, truth at the left, detections of score 0.5 and better at the right.

    Args:
        index: the split.
        rows: detections in COCO's result format.
        folder: where the pictures go.
        count: how many, at most all.
    """
    by_image = defaultdict(list)
    for row in rows:
        by_image[row["image_id"]].append(row)
    for position in range(min(count, len(index))):
        image_id = int(index.image_ids[position])
        image = load_image(index.path(position))
        picture = side_by_side(
            image,
            truth_of(index, image_id),
            detections_of(index, by_image[image_id], min_score=MIN_SCORE),
            index.class_names,
        )
        save_picture(picture, folder / f"{image_id:012d}.png")


def draw_predictions(
    image: np.ndarray, rows: Sequence[Mapping[str, Any]], categories: Mapping[int, str], path: Path, min_score: float
) -> int:
    """Draw the detections of one picture and return how many were drawn."""
    drawn = detections_of(tuple(categories), rows, min_score=min_score)
    save_picture(draw(image, drawn, tuple(categories.values())), path)
    return len(drawn.labels)
