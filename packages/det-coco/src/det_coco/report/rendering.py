"""A report as one page."""

from collections.abc import Callable, Mapping, Sequence

from det_coco.annotations import CocoIndex
from det_coco.detections import Detections
from det_coco.page import Html, Page, Section, facts, folded, grid, heading, line, link, text
from det_coco.report.analysis import TaskReport
from det_coco.report.drawing import draw_example
from det_coco.report.gallery import galleries
from det_coco.report.outcomes import WORDS
from det_coco.report.pieces import (
    NAMES,
    calibration_plot,
    class_table,
    confusion_pieces,
    group_table,
    metrics_table,
    mistakes_table,
    precision_plot,
    score_plot,
    threshold_table,
)


def report_page(
    index: CocoIndex,
    detections: Detections,
    reports: Mapping[str, TaskReport],
    *,
    title: str,
    pictures: int = 12,
    about: Mapping[str, str] | None = None,
    more: Sequence[Section] = (),
) -> Page:
    """Make a page of what was found out about detections.

    Args:
        index: the split.
        detections: of its images.
        reports: of these detections, as `analyse` gives them.
        title: of the page.
        pictures: examples of each kind.
        about: further facts, such as where the detections come from.
        more: sections that follow, such as about the training.
    """
    last = list(reports.values())[-1]
    return Page(
        title=title,
        summary=[facts(_facts(index, detections) | dict(about or {})), metrics_table(reports), _verdict(last)],
        sections=[
            Section(title="Mistakes and what they cost", pieces=[_about_mistakes(), mistakes_table(reports)]),
            Section(title="Classes", pieces=_by_task(reports, _classes)),
            Section(title="Sizes, crowding, border", pieces=_by_task(reports, lambda report: [group_table(report)])),
            Section(title="Scores and thresholds", pieces=_by_task(reports, _scores)),
            Section(title="Confusion", pieces=_by_task(reports, _confusion)),
            *_galleries(index, detections, last, pictures),
            *more,
        ],
    )


def _facts(index: CocoIndex, detections: Detections) -> dict[str, str | int]:
    crowd = int(index.crowd.sum())
    return {
        "annotations": link(index.annotation_file, index.annotation_file.name),
        "images": len(index),
        "classes": index.num_classes,
        "objects": f"{index.num_instances - crowd:,d}" + (f", and {crowd:,d} crowds" if crowd else ""),
        "detections": len(detections),
        "data fingerprint": index.fingerprint,
    }


def _verdict(report: TaskReport) -> Html:
    """The kind of mistake that costs most, and the score to work with."""
    kind = max(report.costs, key=lambda name: report.costs[name])
    words = "Nothing is found."
    if report.best is not None:
        words = f"The best F1, {report.best.f1:.3f}, is that of a min_score of {report.best.score:g}: " + (
            f"{report.best.precision:.0%} of such detections are right, and they find {report.best.recall:.0%} of the "
            "objects."
        )
    if report.costs[kind] > 0:
        words += f" Of the {NAMES[report.iou_type]}' mistakes, {kind} costs most: {WORDS[kind]}."
    return text(words)


def _about_mistakes() -> Html:
    return text(
        line(
            "As",
            link("https://arxiv.org/abs/2008.08115", "TIDE"),
            "has it: how much higher AP50 would be if one kind of mistake were mended and the others stayed. Counts "
            "are of detections of any score.",
        )
    )


def _by_task(reports: Mapping[str, TaskReport], pieces: Callable[[TaskReport], Sequence[Html]]) -> list[Html]:
    found: list[Html] = []
    for task, report in reports.items():
        found += [heading(NAMES[task].capitalize())] if len(reports) > 1 else []
        found += pieces(report)
    return found


def _classes(report: TaskReport) -> list[Html]:
    words = (
        f"Missed objects, and false detections by cause, are those at the working point: scores of "
        f"{report.min_score:g} and better."
    )
    return [text(words), class_table(report)]


def _scores(report: TaskReport) -> list[Html]:
    rows = [("all classes together", report.best, report.precise)]
    rows += [(result.name, result.best, result.precise) for result in report.classes]
    plots = [precision_plot({"": report}), score_plot(report.curve, report.best), calibration_plot(report)]
    words = (
        "The least scores to choose. Classes have their own, since a score of 0.5 means more for one class than for "
        "another."
    )
    return [
        grid(plots),
        threshold_table(rows[:1], report.wished_precision),
        folded("Thresholds of each class", [text(words), threshold_table(rows[1:], report.wished_precision)]),
    ]


def _confusion(report: TaskReport) -> list[Html]:
    if report.confusion is None:
        return [text("There is no confusion matrix: it needs hotcoco, and classes that are told apart.")]
    words = (
        f"Detections of {report.confusion.min_score:g} and better, matched to objects of any class at an IoU of 0.5."
    )
    return [text(words), *confusion_pieces(report.confusion, report.classes)]


def _galleries(index: CocoIndex, detections: Detections, report: TaskReport, count: int) -> list[Section]:
    masks = report.iou_type != "bbox"
    sections = []
    for title, (words, examples) in (galleries(index, detections, report, count) if count else {}).items():
        drawn = [draw_example(index, {"detections": detections}, example, masks=masks) for example in examples]
        pieces = [text(words), grid(drawn) if drawn else text("There are none.")]
        sections.append(Section(title=title, pieces=pieces))
    return sections
