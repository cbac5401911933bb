"""Applying the changes of findings to annotation files."""

import contextlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from det_coco.doctor.findings import Change, Finding
from det_coco.doctor.records import LISTS, Records
from det_coco.outputs import filled, try_folder

NEW_FOLDER = "Name a new folder for what is mended, so that nothing is overwritten."


def changes_for(split: str, findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Collect the changes of one split so that they can be applied one after the other.

    Args:
        split: its name.
        findings: in the order of their rank; of two values for one place the later counts.

    Returns:
        a JSON Patch, each operation with the `kind` of the finding: values first, then rows from the last to the
        first, so that no path is moved by an operation before it.
    """
    values: dict[str, dict[str, Any]] = {}
    removed: dict[tuple[str, int], dict[str, Any]] = {}
    for finding in findings:
        for change in finding.fix:
            if change["split"] == split:
                operation = {"kind": finding.kind, **change}
                if change["op"] == "remove":
                    removed.setdefault(_place(change), operation)
                else:
                    values[change["path"]] = operation
    kept = [operation for operation in values.values() if _place(operation) not in removed]
    return kept + [removed[place] for place in sorted(removed, reverse=True)]


def mend(content: dict[str, Any], changes: Iterable[Change]) -> dict[str, Any]:
    """Apply changes to the content of an annotation file.

    Args:
        content: lists of rows, which are not changed.
        changes: as `changes_for` gives them.

    Returns:
        content that shares the rows without changes.
    """
    mended = {**content, **{name: list(content[name]) for name in LISTS}}
    owned: set[tuple[str, int]] = set()
    for change in changes:
        name, row = _place(change)
        if change["op"] == "remove":
            del mended[name][row]
            continue
        if (name, row) not in owned:
            owned.add((name, row))
            mended[name][row] = dict(mended[name][row])
        mended[name][row][change["path"].rsplit("/", 1)[1]] = change["value"]
    return mended


def write_mended(splits: Sequence[Records], findings: Sequence[Finding], output: Path) -> int:
    """Write mended annotation files, links to the pictures, and a log.

    Args:
        splits: as they were read.
        findings: in the order of their rank.
        output: a folder that does not exist or is empty: `annotations/` with the files under their names, for each
            split a link to the folder of its pictures where the system allows one, and `changes.json`, a list of the
            changes: operations of JSON Patch (RFC 6902) with the split, the kind of finding, and the value before.

    Returns:
        number of changes.

    Raises:
        DataError: the folder is not empty, or cannot be written.
    """
    try_folder(output, NEW_FOLDER)
    log = []
    with filled(output):
        (output / "annotations").mkdir(parents=True, exist_ok=True)
        for records in splits:
            changes = changes_for(records.name, findings)
            log += [{**change, **_before(records.content, change)} for change in changes]
            name = f"instances_{records.name}.json"
            _write(output / "annotations" / name, mend(records.content, changes))
            with contextlib.suppress(OSError):  # Windows allows links to few
                (output / records.name).symlink_to(records.folder.resolve(), target_is_directory=True)
        _write(output / "changes.json", log, indent=1)
    return len(log)


def _place(change: Change) -> tuple[str, int]:
    name, row = change["path"].split("/")[1:3]
    return name, int(row)


def _before(content: dict[str, Any], change: Change) -> dict[str, Any]:
    """What a change replaces or removes, where there is something."""
    name, row = _place(change)
    record, key = content[name][row], change["path"].rsplit("/", 1)[1]
    if change["op"] == "remove":
        return {"was": record}
    return {"was": record[key]} if isinstance(record, dict) and key in record else {}


def _write(file: Path, value: Any, indent: int | None = None) -> None:
    file.write_text(json.dumps(value, ensure_ascii=False, indent=indent) + "\n", encoding="utf-8")
