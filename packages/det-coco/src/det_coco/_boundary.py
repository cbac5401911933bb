"""Boundary IoU of masks (Cheng et al., "Boundary IoU", 2021)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from det_coco._coco_api import coco_mask

# Width of the boundary, as a fraction of the image's diagonal.
_WIDTH = 0.02


def boundary_ious(ious: np.ndarray, found: Sequence[dict[str, Any]], truth: Sequence[dict[str, Any]]) -> np.ndarray:
    """Lower overlaps of masks to those of their boundaries.

    Args:
        ious: float64 `[D, G]` overlaps of the masks.
        found: D annotations of pycocotools with a run-length code as `segmentation`, which keep their boundary.
        truth: G annotations of pycocotools, likewise; crowds keep the overlap of the masks.

    Returns:
        float64 `[D, G]`.
    """
    crowd = np.array([row["iscrowd"] for row in truth], dtype=bool)
    edges = coco_mask.iou(
        [_boundary(row) for row in found], [_boundary(row) for row in truth], crowd.astype(int).tolist()
    )
    return np.where(crowd, ious, np.minimum(ious, edges))


def _boundary(row: dict[str, Any]) -> dict[str, Any]:
    if "boundary" not in row:
        row["boundary"] = mask_boundary(row["segmentation"])
    return row["boundary"]


def mask_boundary(rle: dict[str, Any]) -> dict[str, Any]:
    """Find the pixels of a mask that lie near its outline, the edge of the picture being one.

    Args:
        rle: compressed run-length code `{"size": [h, w], "counts": bytes}`.

    Returns:
        the run-length code of the boundary, which is as wide as 2 % of the picture's diagonal.
    """
    height, width = rle["size"]
    distance = max(1, round(_WIDTH * float(np.hypot(height, width))))
    x, y, w, h = (int(side) for side in coco_mask.toBbox(rle))
    mask = coco_mask.decode(rle)
    inner = mask[y : y + h, x : x + w]
    inner -= _erode(_erode(inner, distance).T, distance).T
    return coco_mask.encode(np.asfortranarray(mask))


def _erode(mask: np.ndarray, distance: int) -> np.ndarray:
    """Pixels of a mask `[h, w]` whose column is in it for `distance` pixels up and down."""
    sums = np.cumsum(np.pad(mask, ((distance + 1, distance), (0, 0))), axis=0, dtype=np.int32)
    return (sums[2 * distance + 1 :] - sums[: -2 * distance - 1] == 2 * distance + 1).astype(mask.dtype)
