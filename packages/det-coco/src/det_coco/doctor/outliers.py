"""Objects that are unlike all others of their class."""

from collections.abc import Iterator, Sequence

import numpy as np

from det_coco.doctor.findings import Case
from det_coco.doctor.inspection import Seen
from det_coco.doctor.records import Records

_ENOUGH = 20
"""Objects of a class from which it is known what is usual."""
_NEIGHBOURS = 8
_RELIABLE = 0.97
"""Share of objects whose nearest ones are of their own class, from which the nearest ones of an object say its class:
in photographs of everyday things it is a third, in those of parts on a table or of drawn shapes nearly all."""
_GAP = 2.5
"""An object is apart where it is so many times as large or long as the most extreme other one of its class."""
_SPREAD = 6.0
"""And so many robust standard deviations from the middle: 1.48 times the median deviation, as of a normal
distribution."""
_BLOCK = 512
_MOST = 40_000


def check_labels(records: Records, seen: Sequence[Seen], fills: np.ndarray) -> Iterator[Case]:
    """Find objects that look like those of another class.

    The eight nearest objects by what is in the box, its shape and how much of it the mask fills are all of one other
    class, in a split where the nearest ones are nearly always right.

    Args:
        records: the split, its boxes in COCO's form.
        seen: its pictures.
        fills: float64 `[N]` share of the box that the mask fills, NaN without one.
    """
    rows = _comparable(records)
    if len(np.unique(records.category[rows])) < 2 or len(rows) > _MOST:
        return
    features = _features(records, seen, fills)[rows]
    labels = records.category[rows]
    near = labels[_nearest(features)]  # [K, 8]
    agree = (near == labels[:, None]).mean(axis=1)
    if (agree > 0.5).mean() < _RELIABLE:
        return
    for k in np.flatnonzero((near == near[:, :1]).all(axis=1) & (near[:, 0] != labels)).tolist():
        n, other = int(rows[k]), int(near[k, 0])
        own, looks = records.categories[int(labels[k])], records.categories[other]
        yield records.case("label_outlier", n, f"{records.name_of(n)} is labelled {own!r} and looks like {looks!r}")


def check_extremes(records: Records) -> Iterator[Case]:
    """Find objects whose size or shape is apart from all others of their class."""
    fine = np.isfinite(records.boxes).all(axis=1) & (records.boxes[:, 2:] >= 1).all(axis=1) & ~records.crowd
    for number, name in records.categories.items():
        rows = np.flatnonzero(fine & (records.category == number))
        if len(rows) < _ENOUGH:
            continue
        w, h = np.log(records.boxes[rows, 2:]).T
        for kind, values in (("size_outlier", (w + h) / 2), ("shape_outlier", (h - w) / 2)):
            for k in _apart(values):
                n = int(rows[k])
                box = records.boxes[n, 2:]
                detail = f"{records.name_of(n)} is {box[0]:g} x {box[1]:g} pixels, as no other {name!r}"
                yield records.case(kind, n, detail)


def _apart(values: np.ndarray) -> list[int]:
    """Positions of the one or two values that a gap separates from all others, at either end: `[K]` logarithms."""
    middle = np.median(values)
    spread = 1.4826 * np.median(np.abs(values - middle)) + 1e-3
    order = np.argsort(values)
    found = []
    for ends in (order, order[::-1]):
        for count in (2, 1):  # two may hide each other
            outer, inner = values[ends[count - 1]], values[ends[count]]
            if abs(outer - inner) > np.log(_GAP) and abs(outer - middle) > _SPREAD * spread:
                found += ends[:count].tolist()
                break
    return found


def _comparable(records: Records) -> np.ndarray:
    """Objects of frequent classes that have pixels enough to be compared."""
    fine = np.isfinite(records.boxes).all(axis=1) & (records.boxes[:, 2:] >= 8).all(axis=1) & ~records.crowd
    numbers, counts = np.unique(records.category[fine], return_counts=True)
    return np.flatnonzero(fine & np.isin(records.category, numbers[counts >= _ENOUGH]))


def _features(records: Records, seen: Sequence[Seen], fills: np.ndarray) -> np.ndarray:
    """What an object looks like: float32 `[N, F]`."""
    crops = np.zeros((len(records.rows), *seen[0].crops.shape[1:]), dtype=np.uint8)
    for rows, picture in zip(records.by_image(), seen, strict=True):
        crops[rows] = picture.crops
    colours = crops.reshape(len(crops), -1).astype(np.float32) / 255  # [N, 192]
    with np.errstate(invalid="ignore", divide="ignore"):
        aspect = np.log(records.boxes[:, 2:3] / records.boxes[:, 3:4])
    # Each weighs about as much as the colours of a quarter of the box.
    shape = np.concatenate((np.nan_to_num(aspect), 4 * np.nan_to_num(fills[:, None], nan=0.5)), axis=1)
    return np.concatenate((colours, shape.astype(np.float32)), axis=1)


def _nearest(features: np.ndarray) -> np.ndarray:
    """The eight nearest other rows of each: int64 `[K, 8]`."""
    squares = (features**2).sum(axis=1)
    found = np.zeros((len(features), _NEIGHBOURS), dtype=np.int64)
    for start in range(0, len(features), _BLOCK):
        part = features[start : start + _BLOCK]
        distance = squares[None] - 2 * part @ features.T
        distance[np.arange(len(part)), np.arange(start, start + len(part))] = np.inf
        found[start : start + len(part)] = np.argpartition(distance, _NEIGHBOURS, axis=1)[:, :_NEIGHBOURS]
    return found
