"""The examples that a report shows: what is worth a look, and why."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from det_coco.annotations import CocoIndex
from det_coco.detections import Detections
from det_coco.report.analysis import TaskReport
from det_coco.report.outcomes import BKG, CLS, KINDS, RIGHT, WORDS

_SIDE = 160.0
"""Pixels that a part of a picture has at least on each side."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """A picture, or a part of one, to be drawn beside its truth.

    Attributes:
        position: of the image.
        words: what there is to see.
        annotations: ids of the annotations that it is about.
        detections: int64 `[K]` rows of the K detections to draw, for each results file that is drawn.
        region: the part to draw, x1, y1, x2, y2 in pixels; None: all of the picture.
    """

    position: int
    words: str
    annotations: tuple[int, ...] = ()
    detections: tuple[np.ndarray, ...] = field(default=(), repr=False)
    region: tuple[int, int, int, int] | None = None


def galleries(
    index: CocoIndex, detections: Detections, report: TaskReport, count: int = 12
) -> dict[str, tuple[str, list[Example]]]:
    """Choose examples of what is wrong.

    Args:
        index: the split.
        detections: of its images.
        report: of these detections.
        count: examples of each kind.

    Returns:
        for each kind, by its heading, a sentence about it and the examples, the most telling first.
    """
    chooser = _Chooser(index, detections, report)
    doubtful = chooser.doubtful()
    wished = f"{report.wished_precision:.0%} of all detections are right"
    return {
        "Worst images": (
            f"The lowest F1 of detections of {report.min_score:g} and better, and of those the most mistakes.",
            chooser.worst(count),
        ),
        "Most confident mistakes": (
            "False detections of the highest scores, but for those that are likely errors of the annotations.",
            chooser.mistakes(doubtful, count),
        ),
        "Missed objects": (
            f"Objects that no detection of {report.min_score:g} or better finds, the largest first.",
            chooser.missed(count),
        ),
        "Likely label errors": (
            f"Detections where the truth says otherwise, of scores at which {wished}."
            if report.precise
            else f"At no score {wished}, so nothing tells errors of the annotations from those of the detector.",
            chooser.examples(doubtful[:count]),
        ),
    }


class _Chooser:
    """What the choices have in common."""

    def __init__(self, index: CocoIndex, detections: Detections, report: TaskReport) -> None:
        self.index, self.found, self.report = index, detections, report
        self.became, self.matches = report.outcomes, report.outcomes.matches
        self.counted = self.matches.scores >= report.min_score
        self.boxes = detections.boxes + np.concatenate((np.zeros((len(detections), 2)), detections.boxes[:, :2]), 1)
        rows = np.arange(index.num_instances)
        self.image_of = np.repeat(np.arange(len(index)), np.diff(index.image_instances))[rows]

    def doubtful(self) -> np.ndarray:
        """Detections that make the annotations doubtful, the highest scores first: int64, in the matches."""
        if self.report.precise is None:
            return np.zeros(0, dtype=np.int64)
        sure = self.matches.scores >= self.report.precise.score
        return self._ranked(self.became.wrong & sure & np.isin(self.became.kinds, (BKG, CLS)))

    def mistakes(self, without: np.ndarray, count: int) -> list[Example]:
        """False detections of the highest scores, a third of each kind at most."""
        chosen = self.became.wrong & self.counted
        chosen[without] = False
        kinds: Counter[int] = Counter()
        rows = []
        for row in self._ranked(chosen).tolist():
            kind = int(self.became.kinds[row])
            if kinds[kind] < -(-count // 3):
                kinds[kind] += 1
                rows.append(row)
            if len(rows) == count:
                break
        return self.examples(np.array(rows, dtype=np.int64))

    def examples(self, rows: np.ndarray) -> list[Example]:
        """Examples of false detections, each with the object that it should have found."""
        made = []
        for row in rows.tolist():
            object_, kind = int(self.became.partners[row]), KINDS[self.became.kinds[row]]
            detection = int(self.matches.detections[row])
            words = f"{self._class_of(detection)} {self.matches.scores[row]:.2f}: {WORDS[kind]}"
            boxes = [self.boxes[detection]]
            if object_ >= 0 and kind != "Bkg":
                name = self.index.class_names[self.index.labels[object_]]
                words += f"; IoU {self.became.overlaps[row]:.2f} with {name}"
                boxes.append(self.index.boxes[object_])
            made.append(
                Example(
                    position=int(self.matches.images[row]),
                    words=f"{words}.",
                    annotations=(int(self.index.annotation_ids[object_]),) if len(boxes) > 1 else (),
                    detections=(np.array([detection]),),
                    region=around(self.index, int(self.matches.images[row]), boxes),
                )
            )
        return made

    def missed(self, count: int) -> list[Example]:
        """Objects that are not found, the largest first, a third of each class at most."""
        lost = np.flatnonzero(~self.became.found(self.report.min_score))
        lost = lost[np.argsort(-self.index.areas[self.matches.truth[lost]], kind="stable")]
        classes: Counter[int] = Counter()
        made: list[Example] = []
        for place in lost.tolist():
            label = int(self.matches.truth_labels[place])
            if classes[label] < -(-count // 3):
                classes[label] += 1
                made.append(self.lost(int(self.matches.truth[place])))
            if len(made) == count:
                break
        return made

    def lost(self, object_: int) -> Example:
        """An object, with the detections that come nearer to it than to others."""
        position = int(self.image_of[object_])
        x1, y1, x2, y2 = self.index.boxes[object_]
        words = f"{self.index.class_names[self.index.labels[object_]]} of {x2 - x1:.0f} x {y2 - y1:.0f} pixels"
        near = self._ranked(self.became.partners == object_)
        shown = self.matches.detections[self.counted & (self.became.partners == object_)]
        if near.size:
            best, row = int(self.matches.detections[near[0]]), int(near[0])
            words += f"; nearest {self._class_of(best)} {self.matches.scores[row]:.2f}"
            words += f" with IoU {self.became.overlaps[row]:.2f}"
            shown = np.unique(np.append(shown, best))
        return Example(
            position=position,
            words=f"{words}.",
            annotations=(int(self.index.annotation_ids[object_]),),
            detections=(shown,),
            region=around(self.index, position, [self.index.boxes[object_]]),
        )

    def worst(self, count: int) -> list[Example]:
        """Images of the lowest F1."""
        size = len(self.index)
        kept = self.counted & ~self.matches.ignored[0]
        right = np.bincount(self.matches.images[kept & (self.became.kinds == RIGHT)], minlength=size)
        wrong = np.bincount(self.matches.images[kept & self.became.wrong], minlength=size)
        lost = np.bincount(self.matches.truth_images[~self.became.found(self.report.min_score)], minlength=size)
        f1 = 2 * right / np.maximum(2 * right + wrong + lost, 1)
        rows = np.lexsort((-(wrong + lost), f1))
        rows = rows[(wrong + lost)[rows] > 0][:count]
        return [
            Example(
                position=int(row),
                words=f"F1 {f1[row]:.2f}: {right[row]} found, {lost[row]} missed, {wrong[row]} false.",
                detections=(self.matches.detections[self.counted & (self.matches.images == row)],),
            )
            for row in rows
        ]

    def _ranked(self, chosen: np.ndarray) -> np.ndarray:
        rows = np.flatnonzero(chosen)
        return rows[np.argsort(-self.matches.scores[rows], kind="stable")]

    def _class_of(self, detection: int) -> str:
        return self.index.categories[int(self.found.category_ids[detection])]


def around(index: CocoIndex, position: int, boxes: Sequence[np.ndarray]) -> tuple[int, int, int, int]:
    """The part of an image around boxes: twice their extent, within the image.

    Args:
        index: the split.
        position: of the image.
        boxes: `[4]` each, x1, y1, x2, y2 in pixels.

    Returns:
        x1, y1, x2, y2 in whole pixels.
    """
    corners = np.stack(boxes)
    low, high = corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)
    middle, half = (low + high) / 2, np.maximum(high - low, _SIDE / 2)
    limit = np.array([index.widths[position], index.heights[position]], dtype=np.float64)
    first = np.clip(np.floor(middle - half), 0, limit - 1)
    last = np.clip(np.ceil(middle + half), first + 1, limit)
    x1, y1, x2, y2 = (int(v) for v in (*first, *last))
    return x1, y1, x2, y2
