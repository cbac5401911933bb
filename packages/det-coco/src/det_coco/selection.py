"""Which images and instances a loader uses, decided once before the first step."""

import logging
from dataclasses import dataclass

import numpy as np

from det_coco._describe import counted, named, some
from det_coco.annotations import CocoIndex
from det_coco.batches import BatchShape
from det_coco.errors import DataError

_log = logging.getLogger("det_coco")


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """The most that an image of a data set holds.

    Attributes:
        max_instances: instances, crowd regions included.
        max_edges: line segments of its masks.
        max_polygons: polygons of its masks.
    """

    max_instances: int
    max_edges: int
    max_polygons: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Instances in use, grouped by image, crowd regions last.

    Attributes:
        rows: int64 `[K]`, the K instances in use, as rows of the index.
        image_rows: int64 `[I + 1]`; image i uses `rows[image_rows[i]:image_rows[i + 1]]`.
    """

    rows: np.ndarray
    image_rows: np.ndarray

    def of(self, position: int) -> np.ndarray:
        """Rows of the index that are in use of the image at a position: int64 `[M]`, crowd regions last."""
        return self.rows[self.image_rows[position] : self.image_rows[position + 1]]


def limits(*indexes: CocoIndex) -> Limits:
    """Measure what the fullest image of some splits holds, to choose a `BatchShape` that fits.

    Args:
        *indexes: the splits.

    Returns:
        the maxima, at least 1 each.
    """
    most = [1, 1, 1]
    for index in indexes:
        image = _image_of(index)
        free = ~index.crowd
        for i, counts in enumerate((np.ones(len(image)), index.edge_counts * free, index.polygon_counts * free)):
            sums = np.bincount(image, counts, minlength=1)
            most[i] = max(most[i], int(sums.max()))
    return Limits(max_instances=most[0], max_edges=most[1], max_polygons=most[2])


def select_instances(index: CocoIndex, shape: BatchShape, *, legacy: bool = False) -> Selection:
    """Choose the instances that batches hold.

    Left out, each counted in a warning: where masks are asked for, instances without a usable one; under legacy
    coordinates, boxes of at most one pixel (maskrcnn-benchmark `clip_to_image`); where `shape.drop_excess` allows it,
    the smallest instances of images that hold more than fits.

    Args:
        index: the data.
        shape: the limits.
        legacy: inclusive pixel coordinates.

    Returns:
        the choice.

    Raises:
        DataError: an image holds more than fits, or masks or keypoints are asked for and there are none.
    """
    _check_keypoints(index, shape)
    image = _image_of(index)
    keep = np.ones(index.num_instances, dtype=bool)  # [N]
    if shape.masks != "none":
        without = ~index.crowd & (index.polygon_counts == 0)
        if without.any() and (without | index.crowd).all():
            raise DataError(
                f"{index.annotation_file} has no instance masks ('segmentation'). Train a detector without masks on it."
            )
        _warn(index, without, "without a usable segmentation")
        keep &= ~without
    if legacy:
        thin = ((index.boxes[:, 2:] - index.boxes[:, :2]) <= 1).any(axis=1)
        _warn(index, thin & keep, "at most one pixel wide or high")
        keep &= ~thin
    keep = _fit(index, shape, image, keep)
    # Crowd regions last, the file's order otherwise.
    rows = np.lexsort((index.crowd, image))
    rows = rows[keep[rows]]
    counts = np.bincount(image[rows], minlength=len(index))
    return Selection(rows=rows, image_rows=np.concatenate(([0], np.cumsum(counts))))


def _check_keypoints(index: CocoIndex, shape: BatchShape) -> None:
    if not shape.keypoints:
        return
    if index.skeleton is None:
        raise DataError(
            f"{index.annotation_file} has no keypoints: no category lists them under 'keypoints', or several list "
            "different ones. Train a detector without keypoints on it."
        )
    if len(index.skeleton.names) != shape.keypoints:
        raise DataError(
            f"{index.annotation_file} has {len(index.skeleton.names)} keypoints an instance, but the detector expects "
            f"{shape.keypoints}. Set the detector's number of keypoints to {len(index.skeleton.names)}."
        )
    if not (index.keypoints[~index.crowd, :, 2] > 0).any():
        raise DataError(f"{index.annotation_file} has no labelled keypoint. Train a detector without keypoints on it.")


def _fit(index: CocoIndex, shape: BatchShape, image: np.ndarray, keep: np.ndarray) -> np.ndarray:
    free = keep & ~index.crowd
    tests = [(keep.astype(np.int64), shape.max_instances, "instances", "max_instances")]
    if shape.masks == "polygons":
        tests.append((index.edge_counts * free, shape.max_edges, "mask edges", "max_edges"))
        tests.append((index.polygon_counts * free, shape.max_polygons, "mask polygons", "max_polygons"))
    over = np.zeros(len(index), dtype=bool)  # [I] has more than fits
    exceeded = []
    for counts, limit, what, option in tests:
        sums = np.bincount(image, counts, minlength=len(index)).astype(np.int64)  # [I]
        over |= sums > limit
        if sums.max(initial=0) > limit:
            exceeded.append(_excess(index, sums, limit, what, option))
    if exceeded and not shape.drop_excess:
        raise DataError(
            f"{' '.join(exceeded)} Raise what is too low to these numbers, or set drop_excess to leave out the "
            "smallest objects."
        )
    kept = keep.copy()
    for position in np.flatnonzero(over):
        rows = np.arange(index.instances(int(position)).start, index.instances(int(position)).stop)
        rows = rows[keep[rows]]
        # Objects before crowd regions, large before small; as many as fit every limit.
        order = rows[np.lexsort((-index.areas[rows], index.crowd[rows]))]
        fits = np.ones(len(order), dtype=bool)
        for counts, limit, _, _ in tests:
            fits &= np.cumsum(counts[order]) <= limit
        kept[order[~fits]] = False
    dropped = keep & ~kept
    _warn(index, dropped, f"in {counted(int(over.sum()), 'image')} with more than fits")
    return kept


def _excess(index: CocoIndex, sums: np.ndarray, limit: int, what: str, option: str) -> str:
    """Say which image holds the most, and how many others more than fits."""
    worst, others = int(sums.argmax()), int((sums > limit).sum()) - 1
    too = f"; so do {counted(others, 'other image')}" if others > 1 else "; so does one other image" if others else ""
    name = f"Image {index.image_ids[worst]} ({some([index.file_names[worst]])}) of {index.annotation_file}"
    return f"{name} has {sums[worst]} {what}, more than the {limit} that {option} allows{too}."


def _warn(index: CocoIndex, which: np.ndarray, what: str) -> None:
    if which.any():
        ids = index.annotation_ids[which]
        left = f"left out {counted(len(ids), 'object')} {what} ({named('annotation', ids)})"
        _log.warning("%s: %s.", index.annotation_file, left)


def _image_of(index: CocoIndex) -> np.ndarray:
    return np.repeat(np.arange(len(index)), np.diff(index.image_instances))
