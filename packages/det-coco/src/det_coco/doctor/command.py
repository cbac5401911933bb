"""The command that checks a data set."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from det_coco.doctor.checkup import Checkup, check_data
from det_coco.doctor.defaults import DEFAULT_PAGE, default_workers
from det_coco.doctor.findings import write_findings
from det_coco.doctor.mending import NEW_FOLDER, write_mended
from det_coco.doctor.page import report_page
from det_coco.doctor.proposals import Proposals
from det_coco.doctor.statistics import measure
from det_coco.doctor.terminal import proposals_text, report
from det_coco.outputs import try_files, try_folder


def check(args: Sequence[str] | None = None, prog: str = "python -m det_coco check") -> int:
    """Read a whole data set, pictures included, and say what is wrong with it.

    Args:
        args: of the command line, without the command's name.
        prog: what messages call the command.

    Returns:
        exit status: 0 clean, 1 findings, 2 an annotation file that cannot be read.

    Raises:
        DataError: there is no data set, or a report cannot be written.
    """
    parser = argparse.ArgumentParser(prog=prog, description=(check.__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="folder or file of the data set")
    parser.add_argument(
        "--workers", type=int, default=default_workers(), help="processes that read pictures (default: %(default)s)"
    )
    parser.add_argument(
        "--page", type=Path, default=DEFAULT_PAGE, help="HTML page with pictures to write (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, help="file for the findings as JSON")
    parser.add_argument("--fix", type=Path, help="new folder for mended annotation files and a log of every change")
    parser.add_argument("--keypoints", action="store_true", help="read person_keypoints_<split>.json")
    options = parser.parse_args(args)
    try_outputs(page=options.page, json=options.json, fix=options.fix)
    checkup = check_data(options.data, workers=options.workers, keypoints=options.keypoints)
    present(checkup, page=options.page, json=options.json, fix=options.fix)
    return checkup.status


def try_outputs(*, page: Path, json: Path | None, fix: Path | None) -> None:
    """Refuse what cannot be written, before time is spent on what would be written there.

    Args:
        page: HTML page to write.
        json: file for the findings.
        fix: new folder for mended annotation files.

    Raises:
        DataError: a file cannot be written, or the folder is used.
    """
    try_files(page, json)
    if fix is not None:
        try_folder(fix, NEW_FOLDER)


def present(
    checkup: Checkup,
    *,
    page: Path,
    json: Path | None = None,
    fix: Path | None = None,
    proposals: Proposals | None = None,
) -> None:
    """Print the report of a check, and write what is asked for.

    Args:
        checkup: of the data set.
        page: HTML page to write.
        json: file for the findings.
        fix: new folder for mended annotation files.
        proposals: options that fit the data, or nothing.

    Raises:
        DataError: something cannot be written.
    """
    statistics = {name: measure(index) for name, index in checkup.indexes.items()}
    print(report(checkup, statistics))
    if proposals is not None:
        print(proposals_text(proposals))
    print(f"Page with pictures: {report_page(checkup, statistics, proposals).write(page)}")
    if json is not None:
        write_findings(checkup.findings, json)
        print(f"Findings: {json}")
    if fix is not None:
        count = write_mended(checkup.splits, checkup.findings, fix)
        print(f"Mended with {count:,} changes, each in {fix / 'changes.json'}: {fix}")
