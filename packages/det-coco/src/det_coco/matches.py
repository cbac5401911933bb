"""Which detection found which object: the facts behind AP, and what intervals are drawn from."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from typing import Any

import numpy as np

from det_coco._columns import Columns, make_columns
from det_coco._evaluators import match, without_collection
from det_coco.annotations import CocoIndex
from det_coco.detections import Detections
from det_coco.protocol import Protocol

_DETECTIONS_AT_A_TIME = 50_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Matches:
    """Detections that count and objects of one size, matched at every IoU threshold.

    `T` thresholds, `D` detections by class and descending score (of equal scores as COCO ranks them), `G` objects.

    Attributes:
        detections: int64 `[D]` row of each in the `Detections` that were matched.
        images: int64 `[D]` position of the image.
        labels: int64 `[D]` class; 0 if class-agnostic.
        scores: float64 `[D]`.
        objects: int64 `[T, D]` row of the object found, in the index; -1 where none is.
        ignored: bool `[T, D]`: neither right nor wrong, such as within a crowd.
        truth: int64 `[G]` rows, in the index, of the objects that are to be found.
        truth_images: int64 `[G]`.
        truth_labels: int64 `[G]`; 0 if class-agnostic.
    """

    detections: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    objects: np.ndarray
    ignored: np.ndarray
    truth: np.ndarray
    truth_images: np.ndarray
    truth_labels: np.ndarray


def match_detections(
    index: CocoIndex,
    detections: Detections,
    iou_type: str = "bbox",
    *,
    protocol: Protocol | None = None,
    image_ids: Iterable[int] | None = None,
) -> Matches:
    """Match detections to objects of all sizes, as the metrics do.

    Args:
        index: the split.
        detections: of its images.
        iou_type: what to compare; see `precision_recall`.
        protocol: the rules; COCO's by default.
        image_ids: match in these images only.

    Raises:
        DataError: see `precision_recall`.
        ValueError: the IoU type is unknown.
    """
    with without_collection():
        return matches_of(make_columns(index, detections, iou_type, protocol or Protocol(), image_ids))


def matches_of(columns: Columns) -> Matches:
    """Match what one evaluation compares; see `match_detections`.

    Args:
        columns: what is compared.
    """
    columns = replace(columns, protocol=replace(columns.protocol, area_ranges={}))
    parts = [_match(part) for part in _parts(columns)]
    joined = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts], axis=-1) for field in fields(Matches)
    }
    return Matches(**joined)


def _parts(columns: Columns) -> Iterator[Columns]:
    """Some classes at a time: an evaluator gives its matches as lists, which take a hundred times their memory."""
    if columns.protocol.class_agnostic:
        yield columns
        return
    counts = np.bincount(columns.found_labels, minlength=columns.num_classes)[columns.labels]
    parts = np.cumsum(counts) // _DETECTIONS_AT_A_TIME
    for part in np.unique(parts):
        yield columns.of(columns.labels[parts == part])


def _match(columns: Columns) -> Matches:
    cells = [cell for cell in match(columns).evalImgs if cell is not None]
    # Evaluators count ids from 1; 0 is "none".
    found = _joined([cell["dtIds"] for cell in cells], np.int64) - 1
    thresholds = len(columns.protocol.iou_thresholds)
    objects = _joined([cell["dtMatches"] for cell in cells], np.int64, thresholds) - 1
    ignored = _joined([cell["dtIgnore"] for cell in cells], bool, thresholds)
    truth = _joined([cell["gtIds"] for cell in cells], np.int64) - 1
    wanted = truth[~_joined([cell["gtIgnore"] for cell in cells], bool)]
    agnostic = columns.protocol.class_agnostic
    labels = np.zeros_like(columns.found_labels) if agnostic else columns.found_labels
    truth_labels = np.zeros_like(columns.truth_labels) if agnostic else columns.truth_labels
    # Of equal scores that of the first image ranks first, and within an image the order of the cell stays.
    order = np.lexsort((np.arange(len(found)), columns.found_images[found], -columns.scores[found], labels[found]))
    found, objects = found[order], objects[:, order]
    return Matches(
        detections=columns.found_rows[found],
        images=columns.found_images[found],
        labels=labels[found],
        scores=columns.scores[found],
        objects=np.where(objects < 0, -1, np.append(columns.truth_rows, -1)[objects]),
        ignored=ignored[:, order],
        truth=columns.truth_rows[wanted],
        truth_images=columns.truth_images[wanted],
        truth_labels=truth_labels[wanted],
    )


def _joined(values: Sequence[Any], dtype: type, rows: int | None = None) -> np.ndarray:
    """Lists, or lists of `rows` lists, one after the other along the last axis."""
    if rows is not None:
        parts = [_joined([value[row] for value in values], dtype) for row in range(rows)]
        return np.stack(parts) if parts else np.zeros((0, 0), dtype)
    if values and isinstance(values[0], np.ndarray):
        return np.concatenate([np.asarray(value) for value in values]).astype(dtype)
    # Many lists of few values each: an array for each of them would take most of the time.
    return np.fromiter(chain.from_iterable(values), dtype, count=sum(map(len, values)))
