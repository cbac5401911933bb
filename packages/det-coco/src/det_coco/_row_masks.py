"""Masks in rows of results, whatever their form, as compressed run-length codes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from det_coco._coco_api import coco_mask
from det_coco._describe import describe
from det_coco._polygon_geometry import clip_polygon, outline_length
from det_coco._record_masks import as_polygons
from det_coco._records import is_coordinate, is_number
from det_coco.annotations import CocoIndex
from det_coco.errors import DataError
from det_coco.rle import measure_codes

# Pixels along all outlines of a mask, for each of which pycocotools needs a hundred bytes.
_LONGEST_OUTLINE = 1 << 22


def mask_of_row(index: CocoIndex, row: Mapping[str, Any], number: int) -> Mapping[str, Any]:
    """Read the mask of a row of results.

    Args:
        index: the split that the row belongs to; knows the sizes of masks given as polygons.
        row: its `segmentation` is a compressed or plain run-length code, a list of polygons, or an array `[H, W]` or
            `[1, H, W]` that is not 0 in the mask.
        number: of the row, for messages.

    Returns:
        a compressed run-length code `{"size": [h, w], "counts": text or bytes}`.

    Raises:
        DataError: it is in no such form; names the row.
    """
    code = row["segmentation"]
    try:
        if isinstance(code, Mapping) and isinstance(code["counts"], str | bytes):
            height, width = code["size"]
            return {"size": [int(height), int(width)], "counts": code["counts"]}
        size = index.image_size(int(row["image_id"]))
        if isinstance(code, Mapping):
            return coco_mask.frPyObjects({"size": list(code["size"]), "counts": list(code["counts"])}, *code["size"])
        if isinstance(code, np.ndarray):
            height, width = code.shape[-2:]
            return coco_mask.encode(np.asfortranarray(code.reshape(height, width) != 0, dtype=np.uint8))
        return _rasterised(_polygons(code, row.get("bbox")), size)
    except DataError as error:
        raise DataError(f"Result {number}: {error}") from None
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError):
        raise DataError(
            f"'segmentation' of result {number} must be a run-length code or a list of polygons, got {describe(code)}."
        ) from None


def areas_of_codes(codes: np.ndarray, offsets: np.ndarray, sizes: np.ndarray, image_ids: np.ndarray) -> np.ndarray:
    """Measure masks of results, and check that their codes are whole.

    Args:
        codes: uint8 `[B]`, here B bytes: compressed run-length codes of K masks, one after the other.
        offsets: int64 `[K + 1]`; mask k owns codes `[k]:[k + 1]`.
        sizes: int64 `[K, 2]` height, width of each in pixels.
        image_ids: `[K]`, for messages.

    Returns:
        int64 `[K]` pixels of the masks.

    Raises:
        DataError: a code cannot be read, or covers another number of pixels; names the result.
    """
    pixels, areas = measure_codes(codes, offsets)
    other = np.flatnonzero(pixels != sizes.prod(axis=1))
    if other.size:
        first = int(other[0])
        covered = f"covers {pixels[first]} pixels, but its image has {sizes[first].prod()}"
        raise DataError(
            f"The run-length code of result {first} (image {image_ids[first]}) "
            f"{covered if pixels[first] >= 0 else 'cannot be read'}. Write the results again."
        )
    return areas


def _polygons(code: Sequence[Any], box: Sequence[float] | None) -> list[np.ndarray]:
    """Points float64 `[P, 2]` of each polygon; raises ValueError for what is none."""
    plain = [polygon.tolist() if isinstance(polygon, np.ndarray) else list(polygon) for polygon in code]
    polygons = as_polygons(plain, (0, 0, 0, 0) if box is None else box)
    if not polygons or min(map(len, polygons)) < 6:
        raise ValueError("no polygon, or one of fewer than three points")
    if not all(is_number(value) and is_coordinate(value) for polygon in polygons for value in polygon):
        raise ValueError("no number, or none that is a coordinate")
    return [np.array(polygon, dtype=np.float64).reshape(-1, 2) for polygon in polygons]


def _rasterised(polygons: list[np.ndarray], size: tuple[int, int]) -> Mapping[str, Any]:
    """Draw polygons; what is far outside the image is cut off before pycocotools takes memory for it."""
    height, width = size
    margin = max(size)
    near = [clip_polygon(points, (-margin, -margin), (width + margin, height + margin)) for points in polygons]
    length = sum(outline_length(points) for points in near)
    if length > _LONGEST_OUTLINE:
        raise DataError(
            f"the outline of its mask has {length:,.0f} pixels, more than the {_LONGEST_OUTLINE:,} that can be "
            "rasterised. Give the mask as a run-length code."
        )
    flat = [points.reshape(-1).tolist() for points in near if len(points)]
    # A mask without any pixel where nothing is left.
    return coco_mask.merge(coco_mask.frPyObjects(flat or [[0.0] * 6], height, width))
