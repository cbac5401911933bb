"""Detections as rows of a COCO results file: written, and read with care."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from det_coco._coco_api import coco_mask
from det_coco._describe import describe, kind, some
from det_coco.annotations import CocoIndex
from det_coco.errors import DataError
from det_coco.rle import decode_many

# Masks whose run lengths are decoded together; more at once leave the cache.
_AT_ONCE = 256


def to_results(
    index_or_ids: CocoIndex | Sequence[int],
    image_id: int,
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    rles: Sequence[Mapping[str, Any]] | None = None,
    *,
    keypoints: np.ndarray | None = None,
    mask_scores: np.ndarray | None = None,
    offset: float = 0.0,
) -> list[dict[str, Any]]:
    """Write the detections of one image as rows of a COCO results file.

    `N` detections, `K` keypoints each.

    Args:
        index_or_ids: an index, or the category ids by contiguous label.
        image_id: the data set's own id.
        boxes: `[N, 4]` x1, y1, x2, y2 in original pixels.
        scores: `[N]`.
        labels: `[N]` contiguous classes 0 .. C - 1.
        rles: N compressed run-length codes `{"size": [h, w], "counts": text}`, or None.
        keypoints: `[N, K, 3]` x, y in original pixels and a third number that the metrics do not read (1 in
            torchvision, the keypoint's own score in detectron2), or None.
        mask_scores: `[N]` scores of the masks, where they are others than the boxes' (YOLACT++), or None.
        offset: 1 where boxes are inclusive (legacy), so that width is x2 - x1 + 1.

    Returns:
        N rows with image_id, category_id, bbox [x, y, width, height] and score; where given also segmentation,
        keypoints (3 K numbers) and mask_score. Plain Python values, ready for JSON.

    Raises:
        ValueError: the arguments are not of one length.
    """
    categories = index_or_ids.category_ids if isinstance(index_or_ids, CocoIndex) else tuple(index_or_ids)
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    xywh = np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2] + offset), axis=1)
    image_id = int(image_id)
    ids = [categories[label] for label in np.asarray(labels).astype(np.int64).tolist()]
    rows: list[dict[str, Any]] = [
        {"image_id": image_id, "category_id": category_id, "bbox": box, "score": score}
        for category_id, box, score in zip(ids, xywh.tolist(), np.asarray(scores).tolist(), strict=True)
    ]
    more: dict[str, list[Any]] = {}
    if rles is not None:
        more["segmentation"] = [_plain_rle(rle) for rle in rles]
    if keypoints is not None:
        more["keypoints"] = np.asarray(keypoints, dtype=np.float64).reshape(len(boxes), -1).tolist()
    if mask_scores is not None:
        more["mask_score"] = np.asarray(mask_scores).tolist()
    for name, values in more.items():
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    return rows


def save_results(results: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Write rows as a COCO results file.

    Args:
        results: rows as `to_results` gives them.
        path: the JSON file; its folder is made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(list(results), separators=(",", ":")))


def check_results(index: CocoIndex, results: Iterable[Any], keys: Sequence[str]) -> list[dict[str, Any]]:
    """Check rows of a results file against a split, before anything is computed from them.

    Args:
        index: the split.
        results: rows from any source, also a generator.
        keys: what is going to be evaluated: some of `bbox`, `segmentation`, `keypoints`.

    Returns:
        new rows with image_id, category_id, score, the keys, and mask_score where a row has one; polygons and lists of
        run lengths come out compressed.

    Raises:
        DataError: a row has something missing, of a wrong type, not finite, or unknown to the split; names the row.
    """
    if isinstance(results, Mapping | str) or not isinstance(results, Iterable):
        raise DataError(f"Results must be a list of rows, one for each detection, got {describe(results)}.")
    sizes = dict(
        zip(index.image_ids.tolist(), zip(index.heights.tolist(), index.widths.tolist(), strict=True), strict=True)
    )
    categories = set(index.category_ids)
    rows = []
    for number, row in enumerate(results):
        if not isinstance(row, Mapping):
            raise DataError(f"Result {number} must be an object with image_id, category_id and score, got {kind(row)}.")
        image_id, category_id = _integer(number, row, "image_id"), _integer(number, row, "category_id")
        if image_id not in sizes:
            raise DataError(
                f"Result {number} belongs to image {image_id}, which is not in {index.annotation_file}. Evaluate "
                "results on the split they were made on."
            )
        if category_id not in categories:
            raise DataError(
                f"Result {number} (image {image_id}) has the category_id {category_id}, which {index.annotation_file} "
                f"does not know (known: {some(index.category_ids, 12)}). Results name category ids, not labels."
            )
        checked = {"image_id": image_id, "category_id": category_id, "score": _numbers(number, row, "score")}
        if "mask_score" in row:
            checked["mask_score"] = _numbers(number, row, "mask_score")
        for key in keys:
            if key == "segmentation":
                checked[key] = _mask(number, row, *sizes[image_id])
            else:
                checked[key] = _numbers(number, row, key, 4 if key == "bbox" else 3 * index.keypoints.shape[1])
        rows.append(checked)
    if "segmentation" in keys:
        for first in range(0, len(rows), _AT_ONCE):
            _check_covers(first, rows[first : first + _AT_ONCE])
    return rows


def _value(number: int, row: Mapping[str, Any], key: str) -> Any:
    if key not in row:
        advice = {"segmentation": " Evaluate bbox alone.", "keypoints": " Evaluate bbox alone."}.get(key, "")
        raise DataError(f"Result {number} has no '{key}' (it has: {some(row, 8) or 'nothing'}).{advice}")
    value = row[key]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _integer(number: int, row: Mapping[str, Any], key: str) -> int:
    value = _value(number, row, key)
    if type(value) not in (int, float) or not math.isfinite(value) or value != int(value):
        raise DataError(f"Result {number}: '{key}' must be a whole number, got {describe(value)}.")
    return int(value)


def _numbers(number: int, row: Mapping[str, Any], key: str, count: int | None = None) -> Any:
    """Read a finite number, or a list of so many."""
    value = _value(number, row, key)
    values = [value] if count is None else value
    if not isinstance(values, list | tuple) or not all(type(v) in (int, float) for v in values):
        what = "a number" if count is None else f"a list of {count} numbers"
        raise DataError(f"Result {number}: '{key}' must be {what}, got {describe(value)}.")
    if count is not None and len(values) != count:
        raise DataError(f"Result {number}: '{key}' must have {count} numbers, got {len(values)}.")
    if not all(map(math.isfinite, values)):
        raise DataError(
            f"Result {number} (image {row['image_id']}): '{key}' is NaN or infinite, so it cannot be evaluated."
        )
    return value if count is None else list(values)


def _mask(number: int, row: Mapping[str, Any], height: int, width: int) -> dict[str, Any]:
    """Read a mask as compressed run lengths, which may still be too many or too few."""
    value = _value(number, row, "segmentation")
    try:
        if isinstance(value, list) and value and all(len(polygon) >= 6 for polygon in value):
            return coco_mask.merge(coco_mask.frPyObjects(value, height, width))
        size, counts = [int(side) for side in value["size"]], value["counts"]
        if isinstance(counts, list) and min(counts, default=0) >= 0:
            counts = coco_mask.frPyObjects({"size": size, "counts": counts}, height, width)["counts"]
        if not isinstance(counts, str | bytes):
            raise TypeError
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError):
        raise _no_mask(number, value) from None
    if size != [height, width]:
        raise DataError(
            f"Result {number} has a mask of {describe(size)} pixels (height, width), but image {row['image_id']} has "
            f"{[height, width]}."
        )
    return {"size": size, "counts": counts}


def _check_covers(first: int, rows: Sequence[dict[str, Any]]) -> None:
    """Check that the run lengths of each mask sum to its picture, many masks at once."""
    masks = [row["segmentation"] for row in rows]
    try:
        runs, offsets = decode_many([mask["counts"] for mask in masks])
    except ValueError:
        if len(rows) == 1:
            raise _no_mask(first, masks[0]) from None
        for n, row in enumerate(rows):
            _check_covers(first + n, [row])
        return
    pixels = np.array([mask["size"][0] * mask["size"][1] for mask in masks], dtype=np.int64)
    sums, negative = (np.diff(np.append(0, np.cumsum(part))[offsets]) for part in (runs, runs < 0))  # [rows]
    wrong = np.flatnonzero((sums != pixels) | (negative > 0))
    if wrong.size:
        n = int(wrong[0])
        height, width = masks[n]["size"]
        raise DataError(
            f"Result {first + n} has a mask whose run lengths do not cover the {height} x {width} pixels of image "
            f"{rows[n]['image_id']}."
        )


def _no_mask(number: int, value: Any) -> DataError:
    return DataError(
        f"Result {number}: 'segmentation' must be a run-length code with 'size' and 'counts' from 0 on, or a list of "
        f"polygons, got {describe(value)}."
    )


def _plain_rle(rle: Mapping[str, Any]) -> dict[str, Any]:
    counts = rle["counts"]
    text = counts.decode("ascii") if isinstance(counts, bytes) else counts
    return {"size": [int(side) for side in rle["size"]], "counts": text}
