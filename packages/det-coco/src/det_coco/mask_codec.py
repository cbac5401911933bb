"""Instance masks of one image, seen as the image is, in the two static forms of a batch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F

from det_coco._coco_api import coco_mask
from det_coco.annotated import Annotated
from det_coco.annotations import CocoIndex
from det_coco.polygons import Polygons
from det_coco.rle import bitmap_to_runs, runs_to_bitmap, runs_to_edges
from det_coco.transforms import View

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageEdges:
    """Masks of one image as outlines: instances -> polygons -> line segments.

    Attributes:
        edges: float32 `[E, 4]` segments x1, y1, x2, y2 in resized pixels; each polygon is closed. A mask given as
            run-length code is one polygon of horizontal segments on pixel boundaries.
        polygon_edges: int64 `[Q]` segments per polygon.
        instance_polygons: int64 `[M]` polygons per instance.
    """

    edges: np.ndarray
    polygon_edges: np.ndarray
    instance_polygons: np.ndarray


def image_edges(picture: Annotated, view: View) -> ImageEdges:
    """Encode the masks of a picture's objects as line segments.

    Crowd regions are left empty: no recipe learns their masks.

    Args:
        picture: the picture with its `M` objects.
        view: what was done to it.

    Returns:
        the outlines, in the order of the objects.
    """
    m = picture.masks
    parts: list[np.ndarray] = []
    polygon_edges: list[np.ndarray] = []
    instance_polygons = np.zeros(len(picture), dtype=np.int64)
    for slot in np.flatnonzero(~picture.crowd):
        runs = m.runs[m.instance_runs[slot] : m.instance_runs[slot + 1]]
        if runs.size:
            # Mirrored by the full width also under legacy rules: these are pixel boundaries, not pixel centres.
            part = view.edges(runs_to_edges(runs, picture.height), offset=0.0)
            lengths = np.array([len(part)], dtype=np.int64)
        else:
            first, last = m.instance_polygons[slot], m.instance_polygons[slot + 1]
            bounds = m.polygon_points[first : last + 1]
            part = view.edges(_close(m.points[bounds[0] : bounds[-1]], bounds - bounds[0]))
            lengths = np.diff(bounds)
        parts.append(part)
        polygon_edges.append(lengths)
        instance_polygons[slot] = len(lengths)
    return ImageEdges(
        edges=np.concatenate(parts) if parts else np.zeros((0, 4), dtype=np.float32),
        polygon_edges=np.concatenate(polygon_edges) if parts else np.zeros(0, dtype=np.int64),
        instance_polygons=instance_polygons,
    )


def closed_outlines(picture: Annotated, slot: int) -> list[np.ndarray]:
    """The mask of one object as closed outlines, which can be turned and cut.

    Args:
        picture: the picture with its objects.
        slot: the object.

    Returns:
        one `[E, 4]` x1, y1, x2, y2 for each polygon; a run-length code is one, of horizontal and vertical edges.
    """
    m = picture.masks
    runs = m.runs[m.instance_runs[slot] : m.instance_runs[slot + 1]]
    if runs.size:
        across = bitmap_to_runs(runs_to_bitmap(runs, picture.height, picture.width).T)  # rows for columns
        vertical = runs_to_edges(across, picture.width)[:, [1, 0, 3, 2]]
        return [np.concatenate((runs_to_edges(runs, picture.height), vertical))]
    bounds = m.polygon_points[m.instance_polygons[slot] : m.instance_polygons[slot + 1] + 1]
    return [_close(m.points[a:b], np.array([0, b - a])) for a, b in pairwise(bounds.tolist())]


def image_bitmaps(picture: Annotated, view: View, sizes: Sequence[Size] = ()) -> dict[str, np.ndarray]:
    """Encode the masks of a picture's objects as bitmaps of the resized image, or of that image reduced.

    Rasterised at the original size (pycocotools), then carried along by the view. A reduced bitmap holds the pixels
    whose bilinear value in the resized one is above one half, as YOLACT reduces masks for its losses
    (`layers/modules/multibox_loss.py`). Crowd regions are left empty.

    Args:
        picture: the picture with its `M` objects.
        view: what was done to it.
        sizes: (height, width) to reduce to; none: bitmaps as large as the resized image.

    Returns:
        uint8 `[M, h, w]` of 0 and 1 for each name of `bitmap_names(sizes)`.
    """
    height, width = picture.height, picture.width
    bitmaps = (
        None if crowd else view.bitmap(_bitmap(picture.masks, slot, height, width))
        for slot, crowd in enumerate(picture.crowd)
    )
    return reduced_bitmaps(bitmaps, len(picture), sizes)


def reduced_bitmaps(
    bitmaps: Iterable[torch.Tensor | None], count: int, sizes: Sequence[Size] = ()
) -> dict[str, np.ndarray]:
    """Reduce bitmaps to the sizes of a batch.

    Args:
        bitmaps: bool `[H, W]` each, or None for objects without one.
        count: M, their number.
        sizes: (height, width) to reduce to; none: they stay as large as they are.

    Returns:
        uint8 `[M, h, w]` of 0 and 1 for each name of `bitmap_names(sizes)`; empty where no object has a bitmap.
    """
    out: dict[str, np.ndarray] = {}
    for slot, bitmap in enumerate(bitmaps):
        if bitmap is None:
            continue
        for name, size in zip(bitmap_names(sizes), sizes or [(bitmap.shape[0], bitmap.shape[1])], strict=True):
            if name not in out:
                out[name] = np.zeros((count, *size), dtype=np.uint8)
            out[name][slot] = _reduce(bitmap, size).numpy()
    return out


def bitmap_names(sizes: Sequence[Size]) -> list[str]:
    """Names of bitmaps in a batch: `mask_bitmaps`, or one `mask_bitmaps_<height>x<width>` per reduced size."""
    return [f"mask_bitmaps_{height}x{width}" for height, width in sizes] or ["mask_bitmaps"]


def _reduce(bitmap: torch.Tensor, size: Size) -> torch.Tensor:
    if tuple(bitmap.shape) == size:
        return bitmap
    return F.interpolate(bitmap[None, None].float(), size, mode="bilinear", align_corners=False)[0, 0] > 0.5


def instance_bitmap(index: CocoIndex, row: int, height: int, width: int) -> np.ndarray:
    """Rasterise one instance at the original size, as pycocotools does.

    Args:
        index: the data.
        row: the instance.
        height: original height of its image.
        width: original width of its image.

    Returns:
        uint8 `[h, w]` of 0 and 1, at the original size; all 0 where the instance has no mask.
    """
    return _bitmap(index.masks, row, height, width)


def _bitmap(m: Polygons, row: int, height: int, width: int) -> np.ndarray:
    runs = m.runs[m.instance_runs[row] : m.instance_runs[row + 1]]
    if runs.size:
        return runs_to_bitmap(runs, height, width)
    bounds = m.polygon_points[m.instance_polygons[row] : m.instance_polygons[row + 1] + 1]
    polygons = [m.points[a:b].reshape(-1) for a, b in pairwise(bounds)]
    if not polygons:
        return np.zeros((height, width), dtype=np.uint8)
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([p.tolist() for p in polygons], height, width)))


def _close(points: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Join each point with the next of its polygon, the last with the first.

    Args:
        points: `[P, 2]`.
        bounds: `[Q + 1]` first point of each polygon, then P.

    Returns:
        `[P, 4]`.
    """
    following = np.arange(1, len(points) + 1)  # [P] the next point of each
    following[bounds[1:] - 1] = bounds[:-1]
    return np.concatenate((points, points[following]), axis=1)
