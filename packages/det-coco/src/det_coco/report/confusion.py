"""Which classes are taken for which."""

import warnings
from dataclasses import dataclass, replace

import numpy as np

from det_coco._coco_api import hotcoco
from det_coco._columns import Columns
from det_coco._evaluators import by_hotcoco
from det_coco.report.outcomes import FOUND, Outcomes


@dataclass(frozen=True, kw_only=True, eq=False)
class Confusion:
    """Objects of each class by the class that they are detected as.

    Attributes:
        matrix: int64 `[C + 1, C + 1]`; rows are true classes, columns detected ones; the last row is of detections
            where there is no object, the last column of objects that are not detected.
        min_score: the least score that counts.
    """

    matrix: np.ndarray
    min_score: float


def confusion(columns: Columns, outcomes: Outcomes, min_score: float) -> Confusion | None:
    """Match detections to objects whatever their classes, best scores first, and count the pairs of classes.

    Args:
        columns: of boxes or masks.
        outcomes: what became of the detections; ignored ones do not count.
        min_score: the least score that counts.

    Returns:
        the matrix of the classes that are evaluated; None without hotcoco, which computes it.
    """
    if hotcoco is None:
        return None
    matches = outcomes.matches
    counted = matches.detections[~matches.ignored[0] & (matches.scores >= min_score)]
    # hotcoco takes what lies in a crowd for a mistake, so it gets to see neither.
    shown = columns.part(~columns.crowd, np.isin(columns.found_rows, counted)).of(columns.labels)
    shown = replace(shown, federation=None, protocol=replace(columns.protocol, federated=False))
    with warnings.catch_warnings(action="ignore"):  # of limits that are not COCO's
        found = by_hotcoco(shown).confusion_matrix(iou_thr=FOUND, max_det=len(counted) + 1)
    return Confusion(matrix=found["matrix"].astype(np.int64), min_score=min_score)
