"""Confidence intervals of AP, so that nobody celebrates noise."""

from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from det_coco.annotations import CocoIndex
from det_coco.curves import chosen_names
from det_coco.detections import Detections
from det_coco.matches import Matches, match_detections
from det_coco.protocol import Protocol

_RECALLS = np.linspace(0, 1, 101)
# Detections times resamplings that are in memory at once.
_BLOCK = 1 << 22


class Interval(NamedTuple):
    """A metric, or a difference of metrics, and where it may lie.

    Attributes:
        value: as :func:`evaluate` gives it, or the difference of two such; -1 where there is no object to find.
        low: lower end; -1 where there is no object to find.
        high: upper end; -1 where there is no object to find.
    """

    value: float
    low: float
    high: float


def confidence_intervals(
    index: CocoIndex,
    detections: Detections,
    iou_type: str = "bbox",
    *,
    protocol: Protocol | None = None,
    level: float = 0.95,
    samples: int = 200,
    seed: int = 0,
) -> dict[str, Interval]:
    """Estimate how far AP would move with other images of the same kind.

    The images are drawn anew with replacement (bootstrap, Efron 1979). The interval is the metric plus and minus as
    many standard deviations of the drawn metrics as `level` asks for, not the range between two quantiles:
    drawing an image twice raises AP by itself, because its objects are then found in pairs.

    Args:
        index: the split.
        detections: of its images.
        iou_type: what to compare; see `precision_recall`.
        protocol: the rules; COCO's by default.
        level: share of such intervals that hold the true value.
        samples: number of drawings.
        seed: the same intervals for the same seed.

    Returns:
        intervals of AP, AP50, AP75 and "AP/<class>" for every class.

    Raises:
        DataError: see `precision_recall`.
        ValueError: level or samples make no sense, or the IoU type is unknown.
    """
    matches = match_detections(index, detections, iou_type, protocol=protocol)
    drawn = draw_metrics(index, matches, protocol or Protocol(), samples=samples, seed=seed)
    return {name: interval(values, level) for name, values in drawn.items()}


def difference_intervals(
    index: CocoIndex,
    first: Detections,
    second: Detections,
    iou_type: str = "bbox",
    *,
    protocol: Protocol | None = None,
    level: float = 0.95,
    samples: int = 200,
    seed: int = 0,
) -> dict[str, Interval]:
    """Estimate how far the difference of two results would move with other images, drawn alike for both.

    Args:
        index: the split.
        first: detections of its images.
        second: detections of the same images by something else.
        iou_type: see `confidence_intervals`.
        protocol: see `confidence_intervals`.
        level: see `confidence_intervals`.
        samples: see `confidence_intervals`.
        seed: see `confidence_intervals`.

    Returns:
        intervals of the second's metrics less the first's: one that holds 0 says nothing about which is better.

    Raises:
        DataError: see `precision_recall`.
        ValueError: level or samples make no sense, or the IoU type is unknown.
    """
    one, two = (
        draw_metrics(
            index,
            match_detections(index, detections, iou_type, protocol=protocol),
            protocol or Protocol(),
            samples=samples,
            seed=seed,
        )
        for detections in (first, second)
    )
    return {name: interval(two[name] - values, level, floor=-1) for name, values in one.items()}


def interval(values: np.ndarray, level: float = 0.95, floor: float = 0.0) -> Interval:
    """The interval around a metric, or a difference of two.

    Args:
        values: `[1 + S]` the metric with the images as they are, then with those of S drawings; NaN where it has none.
        level: share of such intervals that hold the true value.
        floor: the least that it can be.

    Raises:
        ValueError: the level makes no sense.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, such as 0.95, got {level}.")
    if np.isnan(values[0]):
        return Interval(-1.0, -1.0, -1.0)
    reach = NormalDist().inv_cdf(0.5 + level / 2) * float(np.nanstd(values[1:]))
    value = float(values[0])
    return Interval(value, max(value - reach, floor), min(value + reach, 1.0))


def draw_metrics(
    index: CocoIndex, matches: Matches, protocol: Protocol, *, samples: int = 200, seed: int = 0
) -> dict[str, np.ndarray]:
    """Metrics of drawings of images: the same drawings for all results that are matched on the same images.

    Args:
        index: the split.
        matches: of its detections.
        protocol: the rules by which they were matched.
        samples: S, number of drawings.
        seed: the same drawings for the same seed.

    Returns:
        AP, AP50, AP75 and "AP/<class>" for every class, each `[1 + S]`: with the images as they are, then as drawn;
        NaN where there is no object to find.

    Raises:
        ValueError: there are fewer than two drawings.
    """
    if samples < 2:
        raise ValueError(f"samples must be at least 2, got {samples}.")
    random = np.random.default_rng(seed)
    count = len(index)
    draws = [np.bincount(random.integers(0, count, count), minlength=count) for _ in range(samples)]
    weights = np.stack([np.ones(count, dtype=np.int64), *draws], axis=1).astype(np.int32)  # [I, S]
    names = chosen_names(index, protocol)
    return _metrics(average_precision(matches, weights, names), names, protocol)


def _metrics(values: np.ndarray, names: dict[int, str], protocol: Protocol) -> dict[str, np.ndarray]:
    """Means over the classes and thresholds of average precisions `[T, C, S]`."""
    thresholds = np.array(protocol.iou_thresholds)
    metrics = {"AP": mean_of(values)}
    for name, threshold in (("AP50", 0.5), ("AP75", 0.75)):
        if threshold in thresholds:
            metrics[name] = mean_of(values[thresholds == threshold])
    if not protocol.class_agnostic:
        metrics |= {f"AP/{name}": mean_of(values[:, [place]]) for place, name in enumerate(names.values())}
    return metrics


def mean_of(values: np.ndarray) -> np.ndarray:
    """Means of those values `[T, C, S]` that are numbers; NaN where none is."""
    known = ~np.isnan(values)
    counts = known.sum(axis=(0, 1))
    return np.where(counts > 0, np.where(known, values, 0).sum(axis=(0, 1)) / np.maximum(counts, 1), np.nan)


def average_precision(matches: Matches, weights: np.ndarray, names: dict[int, str]) -> np.ndarray:
    """Average precision with each image counted a number of times.

    Args:
        matches: at T thresholds.
        weights: int32 `[I, S]` how often each image counts.
        names: of the C classes by label.

    Returns:
        `[T, C, S]`; NaN where there is no object to find.
    """
    values = np.full((len(matches.objects), len(names), weights.shape[1]), np.nan)
    for place, label in enumerate(names):
        first, last = np.searchsorted(matches.labels, (label, label + 1))
        images = matches.images[first:last]
        wanted = weights[matches.truth_images[matches.truth_labels == label]].sum(axis=0)  # [S]
        block = max(1, _BLOCK // max(last - first, 1))
        for start in range(0, weights.shape[1] if wanted.any() else 0, block):
            part = slice(start, start + block)
            counted = np.cumsum(weights[images, part], axis=0)  # [D, S]
            for t, (objects, ignored) in enumerate(
                zip(matches.objects[:, first:last], matches.ignored[:, first:last], strict=True)
            ):
                values[t, place, part] = _area(weights[images, part], counted, objects >= 0, ignored, wanted[part])
    return values


def _area(
    weights: np.ndarray, counted: np.ndarray, found: np.ndarray, ignored: np.ndarray, wanted: np.ndarray
) -> np.ndarray:
    """Area `[S]` under COCO's curve of one class at one threshold.

    Precision needs a look only where an object is found: elsewhere it falls, and COCO takes the highest to the right.

    Args:
        weights: `[D, S]` how often each detection counts, by descending score.
        counted: `[D, S]` sums of them.
        found: `[D]` whether the detection found an object.
        ignored: `[D]` whether it does not count.
        wanted: `[S]` objects.
    """
    rows = np.flatnonzero(found & ~ignored)
    if not rows.size:
        return np.where(wanted > 0, 0.0, np.nan)
    right = np.cumsum(weights[rows], axis=0)  # [H, S]
    passed = np.flatnonzero(ignored)
    skipped = np.cumsum(np.vstack((np.zeros_like(weights[:1]), weights[passed])), axis=0)
    all_ = counted[rows] - skipped[np.searchsorted(passed, rows)]
    precision = right / (all_ + np.spacing(1))
    best = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    recall = right / np.maximum(wanted, 1)
    # How many of the 101 levels of recall each row reaches first.
    reached = np.minimum((recall * 100 + 1e-9).astype(np.int64), 100)
    reached -= _RECALLS[reached] > recall
    levels = np.diff(reached + 1, axis=0, prepend=0)
    return np.where(wanted > 0, (levels * best).sum(axis=0) / len(_RECALLS), np.nan)
