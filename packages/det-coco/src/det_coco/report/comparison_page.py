"""A comparison as a page, and as a table for a terminal."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from det_coco.annotations import CocoIndex
from det_coco.detections import Detections
from det_coco.intervals import Interval
from det_coco.page import Cell, Column, Html, Page, Section, facts, grid, heading, table, text
from det_coco.plots import COLOURS, axes, plot
from det_coco.report.analysis import TaskReport
from det_coco.report.comparison import Comparison, Difference
from det_coco.report.drawing import draw_example
from det_coco.report.gallery import Example, around
from det_coco.report.outcomes import WORDS
from det_coco.report.pieces import NAMES, known, precision_plot, shown_interval

_NAME = 28
"""Characters that a table on a terminal has for a name."""
_CHANCE = "A difference whose interval holds 0 may be chance."


def comparison_text(comparison: Comparison) -> str:
    """A table of 80 columns at most, without a line break at the end."""
    lines = []
    for task, reports in comparison.reports.items():
        lines.append(f"{NAMES[task]:<{_NAME}}{'AP':>7}{'AP50':>7}{'AP75':>7}  AP less the first's")
        for name, report in reports.items():
            shown = name if len(name) < _NAME else f"...{name[4 - _NAME :]}"
            values = [report.metrics.get(metric, -1.0) for metric in ("AP", "AP50", "AP75")]
            cells = "".join(f"{'-' if value < 0 else f'{value:.3f}':>7}" for value in values)
            difference = comparison.differences[task].get(name)
            more = f"  {_signed(difference.intervals['AP'])}" if difference else ""
            lines.append(f"{shown:<{_NAME}}{cells}{more}")
    for name in next(iter(comparison.differences.values())):
        for task, differences in comparison.differences.items():
            gained, lost = len(differences[name].gained), len(differences[name].lost)
            lines.append(
                f"{NAMES[task]}: {name} finds {gained} objects that the first misses, and misses {lost} that it finds."
            )
    return "\n".join([*lines, _CHANCE])


def _signed(value: Interval) -> str:
    return f"{value.value:+.3f} ({value.low:+.3f} to {value.high:+.3f})" if value.high > -1 else ""


def comparison_page(
    index: CocoIndex,
    results: Mapping[str, Detections],
    comparison: Comparison,
    *,
    pictures: int = 12,
    more: Sequence[Section] = (),
) -> Page:
    """Make a page of a comparison.

    Args:
        index: the split.
        results: detections of its images, by name.
        comparison: of these results.
        pictures: examples of objects gained and of objects lost.
        more: sections that follow, such as about settings.
    """
    tasks = comparison.reports
    return Page(
        title=f"{' and '.join(results)} compared" if len(results) == 2 else f"{len(results)} results compared",
        summary=[
            facts({"annotations": index.annotation_file.name, "images": len(index), "fingerprint": index.fingerprint}),
            *_each(tasks, lambda task: _overall(tasks[task], comparison.differences[task])),
            text(_CHANCE),
        ],
        sections=[
            Section(
                title="Classes", pieces=_each(tasks, lambda task: _classes(tasks[task], comparison.differences[task]))
            ),
            Section(title="Mistakes and what they cost", pieces=_each(tasks, lambda task: _mistakes(tasks[task]))),
            Section(title="Curves", pieces=_each(tasks, lambda task: _curves(tasks[task]))),
            *_exchanged(index, results, comparison, pictures),
            *more,
        ],
    )


def _each(tasks: Mapping[str, object], pieces: Callable[[str], Sequence[Html]]) -> list[Html]:
    found: list[Html] = []
    for task in tasks:
        found += [heading(NAMES[task].capitalize())] if len(tasks) > 1 else []
        found += pieces(task)
    return found


def _overall(reports: Mapping[str, TaskReport], differences: Mapping[str, Difference]) -> list[Html]:
    metrics = [name for name in next(iter(reports.values())).metrics if "/" not in name]
    columns = [
        "result", Column("AP less the first's", "+.3f"), "95 % interval", "objects gained", "objects lost", *metrics,
    ]  # fmt: skip
    rows: list[list[Cell]] = []
    for name, report in reports.items():
        other = differences.get(name)
        cells: list[Cell] = [None, "", None, None]
        if other is not None:
            ap = other.intervals["AP"]
            cells = [ap.value, shown_interval(ap, sign="+"), len(other.gained), len(other.lost)]
        rows.append([name, *cells, *[known(report.metrics.get(metric, -1.0)) for metric in metrics]])
    return [table(columns, rows)]


def _classes(reports: Mapping[str, TaskReport], differences: Mapping[str, Difference]) -> list[Html]:
    columns: list[Column | str] = ["class", "objects", *[f"AP of {name}" for name in reports]]
    for name in differences:
        columns += [Column(f"{name} less the first", "+.3f"), "95 % interval"]
    first = next(iter(reports.values()))
    rows = []
    for place, result in enumerate(first.classes):
        row: list[Cell] = [result.name, result.objects]
        row += [known(report.classes[place].interval.value) for report in reports.values()]
        for difference in differences.values():
            value = difference.intervals.get(f"AP/{result.name}", difference.intervals["AP"])
            row += [value.value if value.high > -1 else None, shown_interval(value, result.images, "+")]
        rows.append(row)
    return [table(columns, rows)]


def _mistakes(reports: Mapping[str, TaskReport]) -> list[Html]:
    columns = ["mistake", "meaning", *[f"AP50 lost: {name}" for name in reports]]
    rows = [(kind, words, *[report.costs[kind] for report in reports.values()]) for kind, words in WORDS.items()]
    return [table(columns, rows)]


def _curves(reports: Mapping[str, TaskReport]) -> list[Html]:
    drawn = axes("F1 at an IoU of 0.5, all classes together", "least score", "F1")
    for place, (name, report) in enumerate(reports.items()):
        thin = report.curve.thinned()
        drawn.plot(thin.scores, thin.f1, color=COLOURS[place % len(COLOURS)], label=name)
    drawn.set(xlim=(0, 1), ylim=(0, 1.02))
    return [grid([precision_plot(reports), plot(drawn)])]


def _exchanged(
    index: CocoIndex, results: Mapping[str, Detections], comparison: Comparison, count: int
) -> list[Section]:
    """What each result finds and the first does not, and the other way round, the largest objects first."""
    task, differences = list(comparison.differences.items())[-1]
    reports = comparison.reports[task]
    first = next(iter(results))
    sections = []
    for name, difference in differences.items() if count else ():
        for title, rows in ((f"Gained by {name}", difference.gained), (f"Lost by {name}", difference.lost)):
            rows = rows[np.argsort(-index.areas[rows], kind="stable")][:count]
            pair = {key: results[key] for key in (first, name)}
            shown = [
                draw_example(index, pair, _example(index, int(row), reports, pair), masks=task != "bbox")
                for row in rows
            ]
            sections.append(Section(title=title, pieces=[grid(shown) if shown else text("There are none.")]))
    return sections


def _example(
    index: CocoIndex, row: int, reports: Mapping[str, TaskReport], results: Mapping[str, Detections]
) -> Example:
    """An object with the detections that each result counts and that come nearer to it than to others."""
    position = int(np.searchsorted(index.image_instances, row, side="right")) - 1
    shown = []
    for name in results:
        became = reports[name].outcomes
        counted = (became.partners == row) & (became.matches.scores >= reports[name].min_score)
        shown.append(became.matches.detections[counted])
    x1, y1, x2, y2 = index.boxes[row]
    return Example(
        position=position,
        words=f"{index.class_names[index.labels[row]]} of {x2 - x1:.0f} x {y2 - y1:.0f} pixels.",
        annotations=(int(index.annotation_ids[row]),),
        detections=tuple(shown),
        region=around(index, position, [index.boxes[row]]),
    )
