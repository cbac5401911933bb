"""What a least score gives: precision and recall, the thresholds to choose, and whether scores mean what they say."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from det_coco.report.outcomes import RIGHT, Outcomes

BINS = 10


@dataclass(frozen=True, slots=True)
class Threshold:
    """A least score, and what detections of that score or better are worth.

    Attributes:
        score: as few digits as tell the detections apart, for a `min_score`.
        precision: share of those detections that are right.
        recall: share of the objects that they find.
        f1: harmonic mean of the two.
    """

    score: float
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreCurve:
    """Precision and recall by least score, for `K` different scores.

    Attributes:
        scores: float64 `[K]`, descending.
        precision: float64 `[K]` of the detections of that score or better.
        recall: float64 `[K]`.
    """

    scores: np.ndarray
    precision: np.ndarray
    recall: np.ndarray

    @property
    def f1(self) -> np.ndarray:
        """Harmonic mean of precision and recall: float64 `[K]`."""
        return 2 * self.precision * self.recall / np.maximum(self.precision + self.recall, 1e-12)

    def best(self) -> Threshold | None:
        """The least score of the highest F1; None where nothing is found."""
        return self._at(int(self.f1.argmax())) if self.f1.any() else None

    def at_precision(self, wished: float) -> Threshold | None:
        """The least score that finds most with a precision; None where no score has it.

        Args:
            wished: precision, up to 1.
        """
        rows = np.flatnonzero((self.precision >= wished) & (self.recall > 0))
        return self._at(int(rows[-1])) if rows.size else None

    def thinned(self, most: int = 200) -> "ScoreCurve":
        """The curve with fewer points, evenly spread over the scores' ranks, to be drawn."""
        rows = (
            np.unique(np.linspace(0, len(self.scores) - 1, most).round().astype(np.int64)) if len(self.scores) else []
        )
        rows = np.asarray(rows, dtype=np.int64)
        return ScoreCurve(scores=self.scores[rows], precision=self.precision[rows], recall=self.recall[rows])

    def numbers(self) -> dict[str, list[float]]:
        """A thinned curve for JSON."""
        thin = self.thinned()
        return {name: getattr(thin, name).tolist() for name in ("scores", "precision", "recall", "f1")}

    def _at(self, row: int) -> Threshold:
        below = self.scores[row + 1] if row + 1 < len(self.scores) else -np.inf
        score = _shortest(below, self.scores[row])
        return Threshold(score, float(self.precision[row]), float(self.recall[row]), float(self.f1[row]))


def score_curve(outcomes: Outcomes, label: int | None = None) -> ScoreCurve:
    """Precision and recall by least score, of all classes together or of one.

    Args:
        outcomes: what became of the detections.
        label: a class; None: all of them.
    """
    matches = outcomes.matches
    counted = ~matches.ignored[0] & ((matches.labels == label) if label is not None else True)
    scores, right = matches.scores[counted], (outcomes.kinds == RIGHT)[counted]
    order = np.argsort(-scores, kind="stable")
    scores, right = scores[order], right[order]
    last = np.flatnonzero(np.diff(scores, append=-np.inf))  # of equal scores
    found = np.cumsum(right)[last]
    wanted = len(matches.truth) if label is None else int((matches.truth_labels == label).sum())
    return ScoreCurve(scores=scores[last], precision=found / (last + 1), recall=found / max(wanted, 1))


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """How scores compare with the share of detections that are right (Guo et al., 2017), in ten equal bins.

    Attributes:
        counts: int64 `[10]` detections with a score from n / 10 to (n + 1) / 10.
        scores: float64 `[10]` their mean score; 0 where there is none.
        shares: float64 `[10]` share of them that is right.
        error: mean of the absolute differences, weighted by the counts (ECE).
    """

    counts: np.ndarray
    scores: np.ndarray
    shares: np.ndarray
    error: float


def calibration(outcomes: Outcomes) -> Calibration:
    """Compare scores with the share of detections that are right.

    Args:
        outcomes: what became of the detections; ignored ones do not count.
    """
    counted = ~outcomes.matches.ignored[0]
    scores, right = outcomes.matches.scores[counted], (outcomes.kinds == RIGHT)[counted]
    bins = np.clip((scores * BINS).astype(np.int64), 0, BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    sums = [np.bincount(bins, values, minlength=BINS) for values in (scores, right)]
    means, shares = (np.divide(total, counts, out=np.zeros(BINS), where=counts > 0) for total in sums)
    error = float((np.abs(means - shares) * counts).sum() / max(counts.sum(), 1))
    return Calibration(counts=counts, scores=means, shares=shares, error=error)


def as_numbers(threshold: Threshold | None) -> dict[str, Any] | None:
    """A threshold for JSON."""
    return None if threshold is None else asdict(threshold)


def _shortest(below: float, score: float) -> float:
    """The number of fewest digits, two at least, above one score and up to the next."""
    for digits in range(2, 17):
        number = float(np.floor(score * 10**digits) / 10**digits)
        if below < number <= score:
            return number
    return float(score)
