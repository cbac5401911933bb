"""``report``, and the page that ``train`` and ``eval`` leave."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import cattrs
import tyro

from apps.common.app import App
from apps.common.commands import read_options
from apps.common.config import from_dict
from apps.common.file_options import ReportOptions
from apps.common.run_sections import read_json, run_sections
from apps.common.splits import annotations_for, data_root, held_out_of_run
from det_coco import CocoIndex, DataError, Detections, Protocol
from det_coco.outputs import try_files
from det_coco.page import Page, text
from det_coco.report.commands import open_split, read_results, write_report
from det_engine import RunDirectory
from det_engine.cli import UsageError
from det_engine.stages import stage


def report(app: App, args: list[str]) -> None:
    """Write a page that says why the AP of a run, or of a results file, is what it is."""
    options = read_options(app, "report", args, ReportOptions(run=tyro.MISSING))
    check_there(options.run)
    run = RunDirectory(options.run) if options.run.is_dir() else None
    results = options.run if run is None else run.predictions
    output = options.output or (Path("report.html") if run is None else run.report)
    try_files(output, options.json)
    sections = [] if run is None else run_sections(app, run)
    if run is not None and not results.exists():
        if not sections:
            raise DataError(f"{run} holds no run: it has neither predictions.json nor metrics.jsonl.")
        about = text("The run has no predictions.json: it was interrupted, or has not been evaluated.")
        print(f"Report: {Page(title=str(run), summary=[about], sections=sections).write(output)}")
        return
    with stage("reading annotations and results"):
        index = split_of(app, options.run, options.data, options.split)
        detections = read_results(index, results)
    with stage("writing the report"):
        write_report(
            index,
            detections,
            output,
            title=str(options.run),
            json=options.json,
            pictures=options.pictures,
            precision=options.precision,
            more=sections,
        )
    print(f"Report: {output}")


def report_run(
    app: App,
    run: RunDirectory,
    index: CocoIndex,
    detections: Detections,
    tasks: Iterable[str],
    protocol: Protocol,
    pictures: int,
) -> None:
    """Write the page of a run that has just been evaluated.

    Args:
        app: of the run.
        run: where the page goes.
        index: the split.
        detections: of its images.
        tasks: what was evaluated; the page is about boxes and masks.
        protocol: the rules of the evaluation.
        pictures: of each kind.
    """
    shown = [task for task in tasks if task in ("bbox", "segm")]
    with stage("writing the report"):
        more = run_sections(app, run)
        write_report(
            index, detections, run.report, title=str(run), tasks=shown, protocol=protocol, pictures=pictures, more=more
        )


def check_there(run: Path) -> None:
    """Refuse a run, or a results file, that does not exist.

    Raises:
        UsageError: it does not.
    """
    if not run.exists():
        raise UsageError(f"{run} is not there. Give the folder of a run, or a results file.")


def split_of(app: App, run: Path, data: Path | None, split: str | None) -> CocoIndex:
    """The split that results belong to: what options say, else what their run says.

    Args:
        app: of the run.
        run: folder of a run, or a results file.
        data: data set that an option names.
        split: split that an option names.

    Raises:
        UsageError: neither an option nor a run says what the data is.
        DataError: there is no such split, or it cannot be read.
    """
    options: dict[str, Any] = read_json(run / "config.json") if run.is_dir() else {}
    training, images = run, []
    if "weights" in options:  # an evaluation, which says what of another run it has evaluated
        data = data or _path(options.get("data"))
        split, images = split or _text(options.get("split")), options.get("images") or []
        weights = _path(options["weights"]) or run
        training = weights if weights.is_dir() else weights.parent.parent
    config = read_json(training / "config.json") if training.is_dir() else {}
    if data is None and split is None and config:
        index = held_out_of_run(training, config, training / "config.json", _tasks(app, config))
    else:
        data = data or _path(config.get("data"))
        if data is None and not config:
            raise UsageError(f"{run} does not say what data it belongs to. Name it by --data.")
        index = open_split(data_root(data), split, **annotations_for(_tasks(app, config)))
    are_ids = isinstance(images, list) and all(isinstance(number, int) for number in images)
    return index.of_images(images) if images and are_ids else index


def _text(value: Any) -> str | None:
    """A value of a configuration that may be damaged, if it is a text."""
    return value if value and isinstance(value, str) else None


def _path(value: Any) -> Path | None:
    return None if _text(value) is None else Path(value)


def _tasks(app: App, config: Mapping[str, Any]) -> tuple[str, ...]:
    """What the detector of a run finds."""
    try:
        return from_dict(config["recipe"], app.kind).model().tasks
    except (cattrs.BaseValidationError, KeyError, TypeError, ValueError):  # no training of this app
        return ()
