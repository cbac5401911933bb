"""What became of each detection and each object: right, or wrong for one of TIDE's reasons, at one IoU threshold.

Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", 2020.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from det_coco._columns import Columns
from det_coco.intervals import average_precision
from det_coco.matches import Matches
from det_coco.report.overlaps import NEAR, overlapping

FOUND = 0.5
"""The IoU from which a detection has found an object."""
KINDS = ("right", "Cls", "Loc", "Both", "Dupe", "Bkg")
RIGHT, CLS, LOC, BOTH, DUPE, BKG = range(len(KINDS))
WORDS = {
    "Cls": "the right place, the wrong class",
    "Loc": "the right class, too far off (IoU 0.1 to 0.5)",
    "Both": "the wrong class, and too far off",
    "Dupe": "an object that a better detection has found",
    "Bkg": "nothing there (IoU below 0.1)",
    "Miss": "objects that no detection comes near",
}
"""What TIDE's kinds of mistakes mean; the last is of objects, the others of detections."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcomes:
    """Detections that count and objects to be found, at an IoU of 0.5.

    `D` detections by class and descending score and `G` objects, both in the order of the matches.

    Attributes:
        matches: at this threshold alone.
        kinds: int8 `[D]`, places in `KINDS`; those that are ignored, such as within a crowd, have a kind too.
        partners: int64 `[D]` row, in the index, of the object that a detection found, doubles or comes nearest; -1
            where there is none.
        overlaps: float64 `[D]` IoU with it.
    """

    matches: Matches
    kinds: np.ndarray
    partners: np.ndarray
    overlaps: np.ndarray

    @property
    def wrong(self) -> np.ndarray:
        """False detections: bool `[D]`."""
        return (self.kinds != RIGHT) & ~self.matches.ignored[0]

    @cached_property
    def finders(self) -> np.ndarray:
        """The detection that found each object: int64 `[G]`, -1 where none did."""
        right = np.flatnonzero(self.kinds == RIGHT)
        finders = np.full(int(self.matches.truth.max(initial=-1)) + 1, -1)  # by row of the index
        finders[self.partners[right]] = right
        return finders[self.matches.truth]

    @cached_property
    def missed(self) -> np.ndarray:
        """Objects without even a detection of another class, or nearby, that would find them if mended: bool `[G]`."""
        near = self.partners[np.isin(self.kinds, (CLS, LOC))]
        return (self.finders < 0) & ~np.isin(self.matches.truth, near)

    def found(self, min_score: float) -> np.ndarray:
        """Objects that a detection of that score or better finds: bool `[G]`."""
        return (self.finders >= 0) & (np.append(self.matches.scores, -1)[self.finders] >= min_score)

    def counts(self) -> dict[str, int]:
        """The number of mistakes of each kind; like TIDE's with ignored detections, which change no metric."""
        numbers = np.bincount(self.kinds, minlength=len(KINDS)).tolist()
        return dict(zip(KINDS[1:], numbers[1:], strict=True)) | {"Miss": int(self.missed.sum())}

    def costs(self) -> dict[str, float]:
        """What each kind of mistake costs in AP50: how much higher it would be with these alone mended."""
        base = self._average_precision(self.matches)
        return {kind: max(self._average_precision(self._mended(kind)) - base, 0.0) for kind in WORDS}

    def _average_precision(self, matches: Matches) -> float:
        """Mean AP of the classes that have objects; 0 for one that has lost them all, as TIDE counts it."""
        classes = np.unique(self.matches.truth_labels)
        images = int(max(self.matches.images.max(initial=0), self.matches.truth_images.max(initial=0))) + 1
        once = np.ones((images, 1), dtype=np.int32)
        values = average_precision(matches, once, dict.fromkeys(classes.tolist(), ""))[0, :, 0]  # [C]
        lost = np.isnan(values) & np.isin(classes, matches.labels)
        values = np.where(lost, 0.0, values)
        return float(np.nanmean(values)) if np.isfinite(values).any() else 0.0

    def _mended(self, kind: str) -> Matches:
        """The matches without the mistakes of one kind."""
        matches = self.matches
        if kind == "Miss":
            kept = ~self.missed
            return replace(
                matches,
                truth=matches.truth[kept],
                truth_images=matches.truth_images[kept],
                truth_labels=matches.truth_labels[kept],
            )
        chosen = self.kinds == KINDS.index(kind)
        right = chosen & self._best
        kept = ~chosen | right
        labels = np.where(right, self._label_of(self.partners), matches.labels)
        order = np.flatnonzero(kept)
        order = order[np.lexsort((-matches.scores[order], labels[order]))]
        return replace(
            matches,
            detections=matches.detections[order],
            images=matches.images[order],
            labels=labels[order],
            scores=matches.scores[order],
            objects=np.where(right, self.partners, matches.objects)[:, order],
            ignored=(matches.ignored & ~right)[:, order],
        )

    @cached_property
    def _best(self) -> np.ndarray:
        """Which detections, if mended, would be the first to find an object that is not found: bool `[D]`."""
        lost = self.matches.truth[self.finders < 0]
        rows = np.flatnonzero(np.isin(self.kinds, (CLS, LOC)) & np.isin(self.partners, lost))
        rows = rows[np.lexsort((self.matches.detections[rows], -self.matches.scores[rows]))]
        _, first = np.unique(self.partners[rows], return_index=True)
        best = np.zeros(len(self.kinds), dtype=bool)
        best[rows[first]] = True
        return best

    def _label_of(self, objects: np.ndarray) -> np.ndarray:
        """Labels of objects that are to be found, any number for others: int64 `[D]`."""
        labels = np.zeros(int(max(self.matches.truth.max(initial=0), objects.max(initial=0))) + 1, dtype=np.int64)
        labels[self.matches.truth] = self.matches.truth_labels
        return labels[objects]


def outcomes(columns: Columns, matches: Matches) -> Outcomes:
    """Find out why each false detection is false.

    Args:
        columns: of boxes or masks.
        matches: of the same at an IoU of 0.5 alone.
    """
    place = np.searchsorted(columns.found_rows, matches.detections)  # [D] in the columns
    number = np.full(len(columns.scores), -1)  # [K] of each in the matches, -1 where it does not count
    number[place] = np.arange(len(place))
    pairs = overlapping(columns, number)
    same = columns.truth_labels[pairs.objects] == matches.labels[pairs.detections]
    same |= columns.protocol.class_agnostic
    found = (matches.objects[0] >= 0) & ~matches.ignored[0]  # [D]
    taken = np.isin(columns.truth_rows, matches.objects[0][found])  # [N]
    own, other, double = (pairs.best(part) for part in (same, ~same, same & taken[pairs.objects]))
    nearest = np.maximum(own[1], other[1])
    kinds = np.select(
        [
            found,
            (own[1] >= NEAR) & (own[1] <= FOUND),
            other[1] >= FOUND,
            double[1] >= FOUND,
            nearest <= NEAR,
        ],
        [RIGHT, LOC, CLS, DUPE, BKG],
        BOTH,
    )
    partners, overlaps = np.where(own[1] >= other[1], own, other)
    for kind, best in {LOC: own, CLS: other, DUPE: double}.items():
        partners, overlaps = np.where(kinds == kind, best, (partners, overlaps))
    rows = np.append(columns.truth_rows, -1)
    partners = np.where(found, matches.objects[0], rows[partners.astype(np.int64)])
    hit = rows[pairs.objects] == np.where(found, matches.objects[0], -1)[pairs.detections]
    overlaps[pairs.detections[hit]] = pairs.ious[hit]
    return Outcomes(matches=matches, kinds=kinds.astype(np.int8), partners=partners, overlaps=overlaps)
