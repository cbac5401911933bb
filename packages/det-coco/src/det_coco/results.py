"""Detections as rows of a COCO results file."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from det_coco.annotations import CocoIndex
from det_coco.detections import Detections
from det_coco.outputs import whole_file

_ROWS_AT_A_TIME = 1 << 12


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

    `K` detections, `J` keypoints each.

    Args:
        index_or_ids: an index, or the category ids by contiguous label.
        image_id: the data set's own id.
        boxes: `[K, 4]` x1, y1, x2, y2 in original pixels.
        scores: `[K]`.
        labels: `[K]` contiguous classes 0 .. C - 1.
        rles: K compressed run-length codes `{"size": [h, w], "counts": text}`, or None.
        keypoints: `[K, J, 3]` x, y in original pixels and a third number that the metrics do not read (1 in
            torchvision, the keypoint's own score in detectron2), or None.
        mask_scores: `[K]` scores of the masks, where they differ from those of the boxes (YOLACT++), or None.
        offset: 1 where boxes are inclusive (legacy), so that width is x2 - x1 + 1.

    Returns:
        K rows with image_id, category_id, bbox [x, y, width, height] and score; where given also segmentation,
        keypoints (3 J numbers) and mask_score. Plain Python values, ready for JSON.

    Raises:
        ValueError: the arguments differ in length.
    """
    categories = index_or_ids.category_ids if isinstance(index_or_ids, CocoIndex) else tuple(index_or_ids)
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    xywh = np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2] + offset), axis=1)
    ids = [categories[label] for label in np.asarray(labels).astype(np.int64).tolist()]
    rows: list[dict[str, Any]] = [
        {"image_id": int(image_id), "category_id": category_id, "bbox": box, "score": score}
        for category_id, box, score in zip(ids, xywh.tolist(), np.asarray(scores).tolist(), strict=True)
    ]
    more: dict[str, list[Any]] = {}
    if rles is not None:
        more["segmentation"] = [_plain_rle(rle) for rle in rles]
    if keypoints is not None:
        more["keypoints"] = [one.ravel().tolist() for one in np.asarray(keypoints, dtype=np.float64)]
    if mask_scores is not None:
        more["mask_score"] = np.asarray(mask_scores).tolist()
    for name, values in more.items():
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    return rows


def save_results(results: Detections | Iterable[Mapping[str, Any]], path: str | Path) -> None:
    """Write a COCO results file, a row a line, whole or not at all.

    Args:
        results: detections as arrays, of which few are rows at a time; or rows as `to_results` gives them.
        path: the JSON file; its folder is made.

    Raises:
        DataError: the file cannot be written.
    """
    path = Path(path)
    rows = _rows(results) if isinstance(results, Detections) else results
    with whole_file(Path(path)) as file:
        begin = "[\n"
        for row in rows:
            file.write(f"{begin}{json.dumps(row, separators=(',', ':'))}".encode())
            begin = ",\n"
        file.write(b"[]\n" if begin == "[\n" else b"\n]\n")


def _rows(detections: Detections) -> Iterator[dict[str, Any]]:
    for first in range(0, len(detections), _ROWS_AT_A_TIME):
        yield from detections[np.arange(first, min(first + _ROWS_AT_A_TIME, len(detections)))].rows()


def _plain_rle(rle: Mapping[str, Any]) -> dict[str, Any]:
    counts = rle["counts"]
    text = counts.decode("ascii") if isinstance(counts, bytes) else counts
    return {"size": [int(side) for side in rle["size"]], "counts": text}
