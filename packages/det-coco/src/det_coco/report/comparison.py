"""Several results of one split side by side: what differs, and whether it is more than chance."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from det_coco.annotations import CocoIndex
from det_coco.detections import Detections
from det_coco.intervals import Interval, interval
from det_coco.protocol import Protocol
from det_coco.report.analysis import TaskReport, analyse
from det_coco.report.outcomes import Outcomes


@dataclass(frozen=True, kw_only=True, eq=False)
class Difference:
    """What a result has that the first has not, in one task.

    Attributes:
        intervals: of AP, AP50, AP75 and "AP/<class>", each less that of the first.
        gained: int64 `[P]` rows, in the index, of the P objects that this result finds at its working point, and the
            first not.
        lost: int64 `[Q]` rows of the Q objects that the first finds, and this result not.
    """

    intervals: dict[str, Interval]
    gained: np.ndarray
    lost: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """Results of one split side by side.

    Attributes:
        reports: by IoU type and by the name of the result.
        differences: of the second result and those after it, by the same.
    """

    reports: dict[str, dict[str, TaskReport]]
    differences: dict[str, dict[str, Difference]]

    def numbers(self, index: CocoIndex) -> dict[str, Any]:
        """All of it for JSON.

        Args:
            index: the split, for the ids of the annotations.
        """
        return {
            task: {
                "results": {name: report.numbers() for name, report in reports.items()},
                "differences": {
                    name: {
                        "intervals": {metric: value._asdict() for metric, value in difference.intervals.items()},
                        "gained": index.annotation_ids[difference.gained].tolist(),
                        "lost": index.annotation_ids[difference.lost].tolist(),
                    }
                    for name, difference in self.differences[task].items()
                },
            }
            for task, reports in self.reports.items()
        }


def compare(
    index: CocoIndex,
    results: Mapping[str, Detections],
    iou_types: Iterable[str] = ("bbox", "segm"),
    *,
    protocol: Protocol | None = None,
    samples: int = 100,
) -> Comparison:
    """Compare results of one split with the first of them.

    Args:
        index: the split.
        results: detections of its images, by name.
        iou_types: "bbox", "segm" or both.
        protocol: the rules; COCO's by default.
        samples: drawings of images for the intervals, the same for all results.

    Raises:
        DataError: see `precision_recall`.
        ValueError: there are fewer than two results, or an IoU type is unknown.
    """
    if len(results) < 2:
        raise ValueError(f"results must be two or more, got {len(results)}.")
    tasks = tuple(iou_types)
    by_name = {
        name: analyse(index, detections, tasks, protocol=protocol, samples=samples)
        for name, detections in results.items()
    }
    reports = {task: {name: found[task] for name, found in by_name.items()} for task in tasks}
    return Comparison(reports=reports, differences={task: _differences(found) for task, found in reports.items()})


def _differences(reports: Mapping[str, TaskReport]) -> dict[str, Difference]:
    (_, first), *others = reports.items()
    before = _found(first.outcomes, first.min_score)
    differences = {}
    for name, report in others:
        after = _found(report.outcomes, report.min_score)
        differences[name] = Difference(
            intervals={
                metric: interval(report.drawn[metric] - values, floor=-1) for metric, values in first.drawn.items()
            },
            gained=np.setdiff1d(after, before),
            lost=np.setdiff1d(before, after),
        )
    return differences


def _found(outcomes: Outcomes, min_score: float) -> np.ndarray:
    return outcomes.matches.truth[outcomes.found(min_score)]
