"""What to draw on a picture: ground truth or detections."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from det_coco.annotations import CocoIndex
from det_coco.mask_codec import instance_bitmap


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """What to draw on one picture: `N` objects, `J` keypoints each.

    Attributes:
        boxes: `[N, 4]` x1, y1, x2, y2 in the picture's pixels.
        labels: `[N]` contiguous classes 0 .. C - 1.
        scores: `[N]`, or None for ground truth.
        masks: bool `[N, height, width]`, or N COCO run-length codes, which are decoded one at a time; or None.
        crowd: bool `[N]`, or None where nothing is crowd.
        keypoints: `[N, J, 3]` x, y in the picture's pixels, and a third number that is above 0 where there is something
            to draw; or None.
        limbs: pairs of keypoints to join, as in `Skeleton`.
    """

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray | None = None
    masks: np.ndarray | Sequence[Mapping[str, Any]] | None = None
    crowd: np.ndarray | None = None
    keypoints: np.ndarray | None = None
    limbs: tuple[tuple[int, int], ...] = ()


def ground_truth_of(index: CocoIndex, image_id: int) -> Drawn:
    """Collect the ground truth of an image, to draw it.

    Args:
        index: the data.
        image_id: the data set's own id.

    Returns:
        boxes, labels, crowd flags, bitmaps at the original size, and keypoints.
    """
    position = index.position(image_id)
    height, width = index.image_size(image_id)
    rows = index.instances(position)
    masks = [instance_bitmap(index, n, height, width) for n in range(rows.start, rows.stop)]
    return Drawn(
        boxes=index.boxes[rows],
        labels=index.labels[rows],
        masks=np.array(masks, dtype=bool).reshape(-1, height, width),
        crowd=index.crowd[rows],
        keypoints=index.keypoints[rows] if index.skeleton else None,
        limbs=index.skeleton.limbs if index.skeleton else (),
    )


def detections_of(
    index_or_ids: CocoIndex | Sequence[int], rows: Sequence[Mapping[str, Any]], *, min_score: float = 0.5
) -> Drawn:
    """Collect COCO result rows of one image, to draw them.

    Args:
        index_or_ids: an index, or the category ids by contiguous label.
        rows: as `to_results` gives them.
        min_score: leave out rows below.

    Returns:
        boxes, labels, scores; where all rows have them, run-length codes and keypoints; the limbs of an index.
    """
    skeleton = index_or_ids.skeleton if isinstance(index_or_ids, CocoIndex) else None
    ids = index_or_ids.category_ids if isinstance(index_or_ids, CocoIndex) else tuple(index_or_ids)
    kept = [row for row in rows if row["score"] >= min_score]
    boxes = np.array([row["bbox"] for row in kept], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    columns = {key: [row[key] for row in kept if key in row] for key in ("segmentation", "keypoints")}
    masks, keypoints = (column if kept and len(column) == len(kept) else None for column in columns.values())
    return Drawn(
        boxes=boxes,
        labels=np.array([ids.index(row["category_id"]) for row in kept], dtype=np.int64),
        scores=np.array([row["score"] for row in kept], dtype=np.float64),
        masks=masks,
        keypoints=None if keypoints is None else np.array(keypoints, dtype=np.float64).reshape(len(kept), -1, 3),
        limbs=skeleton.limbs if skeleton else (),
    )
