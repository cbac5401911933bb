"""The commands `report` and `compare` on results files."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from det_coco._json import not_json
from det_coco.annotations import CocoIndex
from det_coco.detections import Detections
from det_coco.errors import DataError
from det_coco.layout import default_split, find_splits, load_split
from det_coco.outputs import try_files, whole_file
from det_coco.page import Section
from det_coco.protocol import Protocol
from det_coco.report.analysis import PRECISION, analyse
from det_coco.report.comparison import compare
from det_coco.report.comparison_page import comparison_page, comparison_text
from det_coco.report.rendering import report_page


def report(args: Sequence[str] | None = None, prog: str = "python -m det_coco report") -> None:
    """Write a page that says why the AP of a results file is what it is.

    Args:
        args: of the command line, without the command's name.
        prog: what messages call the command.

    Raises:
        DataError: the data, the results file or a place to write to are wrong.
    """
    parser = argparse.ArgumentParser(prog=prog, description="Write a page that explains the AP of a results file.")
    parser.add_argument("results", type=Path, help="results file in COCO's format")
    _add_shared(parser, Path("report.html"))
    parser.add_argument(
        "--precision",
        type=float,
        default=PRECISION,
        help="precision for which the page names score thresholds (default: %(default)s)",
    )
    options = _parsed(parser, args)
    if not 0 < options.precision <= 1:
        raise DataError(f"--precision must be above 0 and up to 1, got {options.precision:g}.")
    index = open_split(options.data, options.split)
    write_report(
        index,
        read_results(index, options.results),
        options.output,
        title=options.results.name,
        json=options.json,
        pictures=options.pictures,
        precision=options.precision,
    )
    print(f"Report: {options.output}")


def compare_results(args: Sequence[str] | None = None, prog: str = "python -m det_coco compare") -> None:
    """Compare results files of one data set: what differs, and whether it is more than chance.

    Args:
        args: of the command line, without the command's name.
        prog: what messages call the command.

    Raises:
        DataError: the data, a results file or a place to write to are wrong.
    """
    parser = argparse.ArgumentParser(prog=prog, description="Compare results files of one data set.")
    parser.add_argument("results", type=Path, nargs="+", help="results files in COCO's format; the first is the base")
    _add_shared(parser, None)
    options = _parsed(parser, args)
    index = open_split(options.data, options.split)
    results = {str(file): read_results(index, file) for file in options.results}
    if len(results) < 2:
        raise DataError("compare needs two or more different results files.")
    tasks = set.intersection(*(set(tasks_of(index, found)) for found in results.values()))
    comparison = compare(index, results, sorted(tasks), protocol=rules_of(index))
    print(comparison_text(comparison))
    if options.json:
        write_json(comparison.numbers(index), options.json)
    if options.output:
        page = comparison_page(index, results, comparison, pictures=options.pictures)
        print(f"Comparison: {page.write(options.output)}")


def _add_shared(parser: argparse.ArgumentParser, output: Path | None) -> None:
    parser.add_argument("--data", type=Path, required=True, help="data set that the results belong to")
    parser.add_argument("--split", help="its split (default: the one to evaluate on)")
    name = "--output" if output else "--html"
    parser.add_argument(
        name, dest="output", type=Path, default=output, help=f"page to write (default: {output or 'none'})"
    )
    parser.add_argument("--json", type=Path, help="file to write every number to")
    parser.add_argument("--pictures", type=int, default=12, help="pictures of each kind (default: %(default)s)")


def _parsed(parser: argparse.ArgumentParser, args: Sequence[str] | None) -> argparse.Namespace:
    """The options; what is to be written is tried.

    Raises:
        DataError: an option makes no sense, or a file cannot be written.
    """
    options = parser.parse_args(args)
    if options.pictures < 0:
        raise DataError(f"--pictures must be 0 or more, got {options.pictures}.")
    try_files(options.output, options.json)
    return options


def write_report(
    index: CocoIndex,
    detections: Detections,
    output: Path,
    *,
    title: str,
    tasks: Sequence[str] | None = None,
    protocol: Protocol | None = None,
    json: Path | None = None,
    pictures: int = 12,
    precision: float = PRECISION,
    more: Sequence[Section] = (),
) -> None:
    """Analyse detections and write a page about them.

    Args:
        index: the split.
        detections: of its images.
        output: the page; its folder is made.
        title: of the page.
        tasks: what it is about; by default `tasks_of` both.
        protocol: the rules; by default `rules_of` the split.
        json: file for every number, or None.
        pictures: of each kind.
        precision: for which thresholds are told.
        more: sections that follow.

    Raises:
        DataError: the detections do not fit the split, or something cannot be written.
    """
    reports = analyse(
        index,
        detections,
        tasks_of(index, detections) if tasks is None else tasks,
        protocol=protocol or rules_of(index),
        wished_precision=precision,
    )
    if json:
        write_json({task: found.numbers() for task, found in reports.items()}, json)
    report_page(index, detections, reports, title=title, pictures=pictures, more=more).write(output)


def open_split(data: Path, split: str | None, *, keypoints: bool = False) -> CocoIndex:
    """The split that results belong to, by default the one to evaluate on; its pictures may be missing.

    Args:
        data: the data set.
        split: name of the split, or None.
        keypoints: as for `find_splits`.

    Raises:
        DataError: there is no such split, or it cannot be read.
    """
    splits = find_splits(data, keypoints=keypoints)
    name = default_split(splits, "val") if split is None else split
    if name is None:
        raise DataError(
            f"{data} has no split to evaluate on by its name (it has: {', '.join(splits)}). Name the one that the "
            "results belong to by --split."
        )
    return load_split(data, name, keypoints=keypoints, check_images=False)


def read_results(index: CocoIndex, file: Path) -> Detections:
    """Read a results file.

    Args:
        index: the split that it belongs to.
        file: in COCO's format.

    Raises:
        DataError: it cannot be read, or a row of it is wrong.
    """
    try:
        text = file.read_bytes()
    except OSError as error:
        raise DataError(f"The results file {file} cannot be read: {error.strerror or error}.") from None
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise not_json(file, text, error) from None
    try:
        return Detections.from_rows(index, rows)
    except DataError as error:
        raise DataError(f"{file}: {error}") from None


def tasks_of(index: CocoIndex, detections: Detections) -> tuple[str, ...]:
    """What a report is about: the boxes, and the masks where both sides have some.

    Args:
        index: the split.
        detections: of its images.
    """
    return ("bbox", "segm") if index.has_masks and detections.mask_codes is not None else ("bbox",)


def rules_of(index: CocoIndex) -> Protocol:
    """LVIS's rules where the data is federated, else COCO's."""
    return Protocol() if index.federation is None else Protocol.lvis()


def write_json(numbers: Mapping[str, Any], file: Path) -> None:
    """Write numbers as JSON.

    Args:
        numbers: by name.
        file: its folder is made.

    Raises:
        DataError: it cannot be written.
    """
    with whole_file(file) as out:
        out.write(json.dumps(numbers, indent=1).encode())
