"""Drawings of detections, alone or beside the truth."""

from collections.abc import Iterator
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

from det_coco import CocoIndex, Detections, detections_of, ground_truth_of, side_by_side

MIN_SCORE = 0.5
Part = Literal["masks", "boxes", "scores", "fps"]


def draw_beside_truth(index: CocoIndex, detections: Detections, count: int) -> Iterator[tuple[int, Image.Image]]:
    """Draw the first images of a split, truth at the left, detections of score 0.5 and better at the right.

    Args:
        index: the split.
        detections: of the split.
        count: how many, at most all.

    Yields:
        image id and picture.
    """
    for position in range(min(count, len(index))):
        image_id = int(index.image_ids[position])
        image = index.image(position)
        yield (
            image_id,
            side_by_side(
                image,
                ground_truth_of(index, image_id),
                detections_of(index, detections[detections.image_ids == image_id].rows(), min_score=MIN_SCORE),
                index.categories,
            ),
        )


def write_corner(picture: Image.Image, text: str) -> None:
    """Write on a dark field in the upper left corner."""
    pen, size = ImageDraw.Draw(picture), max(12, picture.height // 24)
    font = ImageFont.load_default(size)
    left, top, right, bottom = pen.textbbox((size // 3, size // 3), text, font=font)
    pen.rectangle((0, 0, right + left, bottom + top), fill=(40, 40, 40))
    pen.text((size // 3, size // 3), text, fill="white", font=font)
