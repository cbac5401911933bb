"""The tables and plots of a report."""

from collections.abc import Mapping, Sequence

import numpy as np

from det_coco.intervals import Interval
from det_coco.page import Cell, Column, Html, folded, shaded, table, text
from det_coco.plots import COLOURS, axes, plot
from det_coco.report.analysis import ClassResult, TaskReport
from det_coco.report.confusion import Confusion
from det_coco.report.outcomes import WORDS
from det_coco.report.scores import ScoreCurve, Threshold

NAMES = {"bbox": "boxes", "segm": "masks", "boundary": "boundaries", "keypoints": "keypoints"}
"""What the IoU types compare."""
ENOUGH = 5
"""Images with a class from which on drawings of images say how far its AP would move."""
_SMALL, _MATRIX = 30, 100
"""Classes up to which a confusion matrix is seen at a glance, and up to which it is shown."""


def known(value: float) -> float | None:
    """A metric as a cell: None where there was nothing to find."""
    return None if value < 0 else value


def shown_interval(interval: Interval, images: int = ENOUGH, sign: str = "") -> str:
    """The ends of an interval, or nothing where images are too few to draw from.

    Args:
        interval: of a metric or of a difference.
        images: those that have objects of what is measured.
        sign: "+" to show it of both ends.
    """
    nothing = images < ENOUGH or (interval.high < 0 and interval.value == -1)
    return "" if nothing else f"{interval.low:{sign}.3f} to {interval.high:{sign}.3f}"


def metrics_table(reports: Mapping[str, TaskReport]) -> Html:
    """The metrics of a results file with their intervals, a row for each."""
    columns = ["", *[cell for task in reports for cell in (NAMES[task], Column("95 % interval", hint=_HINT))]]
    names = [name for name in next(iter(reports.values())).metrics if "/" not in name]
    rows = []
    for name in names:
        cells: list[Cell] = [name]
        for report in reports.values():
            interval = report.intervals.get(name)
            cells += [known(report.metrics.get(name, -1.0)), shown_interval(interval) if interval else ""]
        rows.append(cells)
    return table(columns, rows, sortable=False)


_HINT = "Where the metric may lie with other images of the same kind (bootstrap by image)"


def mistakes_table(reports: Mapping[str, TaskReport]) -> Html:
    """TIDE's kinds of mistakes: how many there are, and what they cost."""
    columns = ["mistake", "meaning"]
    for task in reports:
        columns += [f"{NAMES[task]}: AP50 lost", f"{NAMES[task]}: count"]
    most = max((cost for report in reports.values() for cost in report.costs.values()), default=0) or 1
    rows = []
    for kind, words in WORDS.items():
        cells: list[Cell] = [kind, words]
        for report in reports.values():
            cost = report.costs[kind]
            cells += [shaded(cost, cost / most), report.counts[kind]]
        rows.append(cells)
    return table(columns, rows, sortable=False)


def class_table(report: TaskReport) -> Html:
    """A row for each class."""
    columns = [
        "class",
        *[Column(name) for name in ("AP", "AP50", "AP75", "AR")],
        Column("95 % interval of AP", hint=_HINT),
        "objects",
        "images",
        Column("missed", hint="Objects that no detection at the working point finds"),
        *[Column(kind, hint=f"False detections at the working point: {WORDS[kind]}") for kind in list(WORDS)[:-1]],
    ]
    rows = [
        (
            result.name, known(result.interval.value), known(result.ap50), known(result.ap75), known(result.ar),
            shown_interval(result.interval, result.images), result.objects, result.images, result.missed,
            *result.mistakes.values(),
        )
        for result in report.classes
    ]  # fmt: skip
    return table(columns, rows)


def group_table(report: TaskReport) -> Html:
    """A row for each part of the objects."""
    rows = [(g.by, g.name, known(g.ap), known(g.ap50), known(g.ar), g.objects) for g in report.groups]
    return table(["by", "objects that are", "AP", "AP50", "AR", "objects"], rows, sortable=False)


def threshold_table(results: Sequence[tuple[str, Threshold | None, Threshold | None]], wished: float) -> Html:
    """A row for all classes together and for each class: the least scores to choose."""
    columns = ["class"]
    for name in ("best F1", f"precision {wished:g}"):
        columns += [f"{name}: min_score", "precision", "recall"]
    rows = [(name, *_threshold(best), *_threshold(precise)) for name, best, precise in results]
    return table(columns, rows)


def _threshold(threshold: Threshold | None) -> tuple[Cell, ...]:
    if threshold is None:
        return (None, None, None)
    return (Html(f"<code>{threshold.score:g}</code>"), threshold.precision, threshold.recall)


def precision_plot(reports: Mapping[str, TaskReport]) -> Html:
    """Precision by recall, mean over the classes.

    Args:
        reports: by what to call their lines: a line for each IoU threshold of 0.5, 0.75 and 0.9 that there is.
    """
    drawn = axes("precision by recall, mean over classes", "recall", "precision")
    styles = {0.5: "-", 0.75: "--", 0.9: ":"}
    for place, (name, report) in enumerate(reports.items()):
        for threshold, style in styles.items():
            rows = [row for row, other in enumerate(report.iou_thresholds) if abs(other - threshold) < 1e-6]
            for row in rows:
                words = f"{name}, IoU {threshold:.2f}" if name else f"IoU {threshold:.2f}"
                drawn.plot(np.linspace(0, 1, 101), report.precision[row], style, color=COLOURS[place], label=words)
    drawn.set(xlim=(0, 1), ylim=(0, 1.02))
    return plot(drawn)


def score_plot(curve: ScoreCurve, best: Threshold | None) -> Html:
    """Precision, recall and F1 by least score."""
    drawn = axes("at an IoU of 0.5, all classes together", "least score", "")
    thin = curve.thinned()
    for name, style in (("precision", "-"), ("recall", "-"), ("f1", "--")):
        drawn.plot(thin.scores, getattr(thin, name), style, label=name.replace("f1", "F1"))
    if best is not None:
        drawn.axvline(best.score, color=COLOURS[7], linewidth=1, label=f"best F1: {best.score:g}")
    drawn.set(xlim=(0, 1), ylim=(0, 1.02))
    return plot(drawn)


def calibration_plot(report: TaskReport) -> Html:
    """The share of detections that are right by their score."""
    made = report.calibration
    drawn = axes(f"calibration (mean error {made.error:.3f})", "score", "share that is right")
    rows = made.counts > 0
    drawn.plot([0, 1], [0, 1], ":", color=COLOURS[7], label="scores that mean what they say")
    drawn.plot(made.scores[rows], made.shares[rows], "o-", label="detections, in ten bins of scores")
    drawn.set(xlim=(0, 1), ylim=(0, 1.02))
    return plot(drawn)


def confusion_pieces(table_: Confusion, classes: Sequence[ClassResult]) -> list[Html]:
    """The confusion matrix, and the pairs of classes that are confused most."""
    names, matrix = [result.name for result in classes], table_.matrix
    between = matrix[:-1, :-1] * (1 - np.eye(len(names), dtype=np.int64))
    wrong = between.sum(axis=0) + between.sum(axis=1)
    shown = np.sort(np.argsort(-wrong, kind="stable")[:_MATRIX])
    pieces = [_matrix(matrix, names, shown)]
    if len(names) > _SMALL:
        title = "The matrix" if len(shown) == len(names) else f"The matrix of the {_MATRIX} classes confused most"
        pieces = [folded(title, pieces)]
    pairs = sorted(np.argwhere(between).tolist(), key=lambda pair: -between[*pair])[:20]
    rows = [(names[a], names[b], int(between[a, b]), between[a, b] / matrix[a].sum()) for a, b in pairs]
    columns = ["truth", "detected as", "times", Column("share of the objects", ".1%")]
    return [text("The classes that are confused most:"), table(columns, rows), *pieces] if rows else pieces


def _matrix(matrix: np.ndarray, names: Sequence[str], shown: np.ndarray) -> Html:
    """A confusion matrix of some classes, shaded by the share of a row."""
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    last = len(names)
    columns = ["truth", *[names[n] for n in shown], "not detected"]
    rows = []
    for row in [*shown.tolist(), last]:
        cells = [shaded(int(matrix[row, n]), shares[row, n]) if matrix[row, n] else "" for n in (*shown.tolist(), last)]
        rows.append(["no object" if row == last else names[row], *cells])
    return table(columns, rows, sortable=False)
