"""Everything that a report says, as numbers: computed here, shown elsewhere."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from det_coco._columns import Columns, make_columns
from det_coco._evaluators import without_collection
from det_coco.annotations import CocoIndex
from det_coco.curves import Curves, chosen_names, curves_of, mean
from det_coco.detections import Detections
from det_coco.intervals import Interval, draw_metrics, interval
from det_coco.matches import Matches, matches_of
from det_coco.protocol import Protocol
from det_coco.report.confusion import Confusion, confusion
from det_coco.report.groups import Group, groups
from det_coco.report.outcomes import FOUND, KINDS, Outcomes, outcomes
from det_coco.report.scores import Calibration, ScoreCurve, Threshold, as_numbers, calibration, score_curve

PRECISION = 0.9
"""The precision that users wish for where they do not say."""


@dataclass(frozen=True, kw_only=True)
class ClassResult:
    """How well the objects of one class are found; -1 where there are none.

    Attributes:
        name: of the class.
        label: its place in the index.
        objects: objects to be found.
        images: images that have some.
        interval: AP with its interval.
        ap50: AP at an IoU of 0.5.
        ap75: AP at an IoU of 0.75.
        ar: recall, mean over IoU thresholds.
        mistakes: false detections by cause, of those that the working point counts.
        missed: objects that no detection which the working point counts finds.
        best: the least score of the highest F1, if anything is found.
        precise: the least score with the wished precision, if there is one.
    """

    name: str
    label: int
    objects: int
    images: int
    interval: Interval
    ap50: float
    ap75: float
    ar: float
    mistakes: dict[str, int]
    missed: int
    best: Threshold | None
    precise: Threshold | None


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskReport:
    """What there is to say of the boxes, or of the masks, of a results file.

    The working point is the least score of the highest F1 of all classes together: what is said of single mistakes
    counts detections from there on.

    Attributes:
        iou_type: "bbox" or "segm".
        metrics: as `evaluate` gives them.
        intervals: of AP, AP50, AP75 and "AP/<class>".
        drawn: the same of each drawing, for comparisons; see `draw_metrics`.
        classes: one for each class.
        groups: AP of parts of the objects.
        outcomes: what became of each detection and object.
        counts: mistakes by kind, as TIDE counts them: of any score.
        costs: how much AP50 each kind of mistake costs.
        precision: float64 `[T, 101]` at levels of recall from 0 to 1, mean over the classes; NaN without objects.
        iou_thresholds: the T thresholds.
        curve: precision and recall by least score at an IoU of 0.5, of all classes together.
        best: the working point, if anything is found.
        precise: the least score with the wished precision, if there is one.
        wished_precision: that precision.
        calibration: scores beside the share that is right.
        confusion: classes that are taken for others; None without hotcoco, or where classes are not told apart.
    """

    iou_type: str
    metrics: dict[str, float]
    intervals: dict[str, Interval]
    drawn: dict[str, np.ndarray]
    classes: list[ClassResult]
    groups: list[Group]
    outcomes: Outcomes
    counts: dict[str, int]
    costs: dict[str, float]
    precision: np.ndarray
    iou_thresholds: tuple[float, ...]
    curve: ScoreCurve
    best: Threshold | None
    precise: Threshold | None
    wished_precision: float
    calibration: Calibration
    confusion: Confusion | None

    @property
    def min_score(self) -> float:
        """The least score of the working point; 0 where nothing is found."""
        return self.best.score if self.best else 0.0

    def numbers(self) -> dict[str, Any]:
        """All of it for JSON, but for what became of single detections."""
        names = [result.name for result in self.classes]
        table = self.confusion
        return {
            "metrics": self.metrics,
            "intervals": {name: value._asdict() for name, value in self.intervals.items()},
            "classes": [{**asdict(result), "interval": result.interval._asdict()} for result in self.classes],
            "groups": [asdict(group) for group in self.groups],
            "mistakes": {kind: {"count": self.counts[kind], "cost": self.costs[kind]} for kind in self.costs},
            "best_f1": as_numbers(self.best),
            "precise": {"wished": self.wished_precision, "threshold": as_numbers(self.precise)},
            "precision_at_recall": {
                f"{threshold:.2f}": np.nan_to_num(values, nan=-1.0).tolist()
                for threshold, values in zip(self.iou_thresholds, self.precision, strict=True)
            },
            "by_score": self.curve.numbers(),
            "calibration": {
                "error": self.calibration.error,
                **{name: getattr(self.calibration, name).tolist() for name in ("counts", "scores", "shares")},
            },
            "confusion": table and {"min_score": table.min_score, "classes": names, "matrix": table.matrix.tolist()},
        }


def analyse(
    index: CocoIndex,
    detections: Detections,
    iou_types: Iterable[str] = ("bbox", "segm"),
    *,
    protocol: Protocol | None = None,
    wished_precision: float = PRECISION,
    samples: int = 100,
) -> dict[str, TaskReport]:
    """Find out why the AP of detections is what it is.

    Args:
        index: the split, which is the truth.
        detections: of its images.
        iou_types: "bbox", "segm" or both.
        protocol: the rules; COCO's by default.
        wished_precision: for which thresholds are told.
        samples: drawings of images for the intervals.

    Returns:
        a report for each IoU type.

    Raises:
        DataError: see `precision_recall`.
        ValueError: an IoU type is unknown, or the precision is not between 0 and 1.
    """
    if not 0 < wished_precision <= 1:
        raise ValueError(f"wished_precision must be above 0 and up to 1, got {wished_precision}.")
    rules = protocol or Protocol()
    with without_collection():
        return {
            iou_type: _analyse(index, detections, iou_type, rules, wished_precision, samples) for iou_type in iou_types
        }


def _analyse(
    index: CocoIndex, detections: Detections, iou_type: str, protocol: Protocol, wished: float, samples: int
) -> TaskReport:
    columns = make_columns(index, detections, iou_type, protocol)
    curves, matches = curves_of(index, columns), matches_of(columns)
    became = outcomes(columns, _at_half(columns, matches))
    drawn = draw_metrics(index, matches, protocol, samples=samples)
    intervals = {name: interval(values) for name, values in drawn.items()}
    curve = score_curve(became)
    best = curve.best()
    min_score = best.score if best else 0.0
    names = chosen_names(index, protocol)
    return TaskReport(
        iou_type=iou_type,
        metrics=curves.metrics(),
        intervals=intervals,
        drawn=drawn,
        classes=_classes(names, curves, intervals, became, min_score, wished),
        groups=groups(index, detections, matches, curves, protocol),
        outcomes=became,
        counts=became.counts(),
        costs=became.costs(),
        precision=_mean_precision(curves),
        iou_thresholds=curves.protocol.iou_thresholds,
        curve=curve,
        best=best,
        precise=curve.at_precision(wished),
        wished_precision=wished,
        calibration=calibration(became),
        confusion=None if protocol.class_agnostic else confusion(columns, became, min_score),
    )


def _mean_precision(curves: Curves) -> np.ndarray:
    values = curves.precision[:, :, :, 0, -1]  # [T, R, C]
    known = values > -1
    counts = known.sum(axis=-1)
    return np.where(counts > 0, np.where(known, values, 0).sum(axis=-1) / np.maximum(counts, 1), np.nan)


def _at_half(columns: Columns, matches: Matches) -> Matches:
    """The matches at an IoU of 0.5 alone."""
    thresholds = columns.protocol.iou_thresholds
    if FOUND not in thresholds:
        return matches_of(replace(columns, protocol=replace(columns.protocol, iou_thresholds=(FOUND,))))
    row = [thresholds.index(FOUND)]
    return replace(matches, objects=matches.objects[row], ignored=matches.ignored[row])


def _classes(
    names: dict[int, str],
    curves: Curves,
    intervals: dict[str, Interval],
    became: Outcomes,
    min_score: float,
    wished: float,
) -> list[ClassResult]:
    thresholds = np.array(curves.protocol.iou_thresholds)
    matches = became.matches
    counted = became.wrong & (matches.scores >= min_score)
    lost = ~became.found(min_score)
    results = []
    for place, (label, name) in enumerate(names.items()):
        best = curves.precision[:, :, place, 0, -1]  # [T, R]
        kinds = np.bincount(became.kinds[counted & (matches.labels == label)], minlength=len(KINDS)).tolist()
        own = matches.truth_labels == label
        by_score = score_curve(became, label)
        results.append(
            ClassResult(
                name=name,
                label=label,
                objects=int(own.sum()),
                images=len(np.unique(matches.truth_images[own])),
                interval=intervals.get(f"AP/{name}", intervals["AP"]),
                ap50=mean(best[thresholds == FOUND]),
                ap75=mean(best[thresholds == 0.75]),
                ar=mean(curves.recall[:, place, 0, -1]),
                mistakes=dict(zip(KINDS[1:], kinds[1:], strict=True)),
                missed=int((own & lost).sum()),
                best=by_score.best(),
                precise=by_score.at_precision(wished),
            )
        )
    return results
