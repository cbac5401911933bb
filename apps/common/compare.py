"""``compare``: runs, or results files, side by side."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from apps.common.app import App
from apps.common.commands import read_options
from apps.common.file_options import CompareOptions
from apps.common.report import check_there, split_of
from apps.common.run_sections import differing, flat, read_json, training_plots
from det_coco import DataError
from det_coco.outputs import try_files
from det_coco.page import Html, Section, table, text
from det_coco.report import compare as compare_results
from det_coco.report import comparison_page, comparison_text
from det_coco.report.commands import read_results, rules_of, tasks_of, write_json
from det_engine import RunDirectory
from det_engine.metrics import read_metrics
from det_engine.stages import stage


def compare(app: App, args: list[str]) -> None:
    """Compare runs, or results files: what differs, and whether it is more than chance."""
    options = read_options(app, "compare", args, CompareOptions(runs=()))
    paths = list(dict.fromkeys(options.runs))
    if len(paths) < 2:
        raise DataError("compare needs two or more different runs or results files.")
    try_files(options.html, options.json)
    files = {path: RunDirectory(path).predictions if path.is_dir() else path for path in paths}
    for path, file in files.items():
        check_there(path)
        if path.is_dir() and not file.exists():
            raise DataError(f"{path} has no {file.name}. Evaluate it first (eval --weights {path}).")
    with stage("reading annotations and results"):
        index = split_of(app, paths[0], options.data, options.split)
        results = {str(path): read_results(index, file) for path, file in files.items()}
    tasks = [task for task in ("bbox", "segm") if all(task in tasks_of(index, found) for found in results.values())]
    with stage("comparing"):
        comparison = compare_results(index, results, tasks, protocol=rules_of(index))
    print(comparison_text(comparison))
    runs = {str(path): RunDirectory(path) for path in paths if path.is_dir()}
    settings = {name: flat(_settings(run)) for name, run in runs.items()}
    rows = differing(settings)
    if options.json:
        different = {row[0]: dict(zip(settings, map(_value, row[1:]), strict=True)) for row in rows}
        write_json({"tasks": comparison.numbers(index), "settings": different}, options.json)
    if options.html:
        with stage("writing the page"):
            more = _sections(runs, rows)
            page = comparison_page(index, results, comparison, pictures=options.pictures, more=more)
            page.write(options.html)
        print(f"Comparison: {options.html}")


def _settings(run: RunDirectory) -> Mapping[str, Any]:
    """The recipe of a training, or the options of an evaluation."""
    config = read_json(run.config)
    return config["recipe"] if isinstance(config.get("recipe"), dict) else config


def _value(text_: str) -> Any:
    try:
        return json.loads(text_)
    except ValueError:
        return None


def _sections(runs: Mapping[str, RunDirectory], rows: Sequence[Sequence[str]]) -> list[Section]:
    """What is known of trainings: their curves over each other, and the settings in which they differ."""
    sections = []
    lines = {name: read_metrics(run.metrics) for name, run in runs.items()}
    if any(lines.values()):
        sections.append(Section(title="Training", pieces=training_plots(lines)))
    if len(runs) > 1:
        pieces: list[Html] = [table(["setting", *runs], rows) if rows else text("There are none.")]
        sections.append(Section(title="Settings that differ", pieces=pieces))
    return sections
