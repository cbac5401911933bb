"""What the check finds: rows of one form, and how single cases become one."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from det_coco.doctor.kinds import KINDS, Severity
from det_coco.outputs import whole_file

Change = Mapping[str, Any]
"""An operation of JSON Patch (RFC 6902) on the annotation file of its `split`, paths by the rows that the file has."""

_DETAILS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One thing found in one split.

    Attributes:
        kind: a key of `KINDS`.
        detail: what it is, a clause that begins with a small letter and has no full stop.
        files: names of the pictures.
        annotation_ids: as the file has them.
        fix: what to change in the annotation file; empty where that is for a person to decide.
    """

    kind: str
    detail: str
    files: tuple[str, ...] = ()
    annotation_ids: tuple[Any, ...] = ()
    fix: tuple[Change, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """All cases of a kind in one split, or one group of pictures that are the same.

    Attributes:
        kind: a key of `KINDS`.
        severity: `error` stops a training or makes it wrong, `warning` costs accuracy, `note` is worth knowing.
        message: whole sentences.
        split: its name; several, joined by a comma, where it is between them.
        files: names of the pictures, each once.
        annotation_ids: as the file has them, each once.
        fix: what to change: operations of JSON Patch, each on the annotation file of the split that it names.
    """

    kind: str
    severity: Severity
    message: str
    split: str
    files: tuple[str, ...]
    annotation_ids: tuple[Any, ...]
    fix: tuple[Change, ...]

    @property
    def title(self) -> str:
        """The kind in words."""
        return KINDS[self.kind].title


def summarize(cases: Iterable[Case], split: str) -> list[Finding]:
    """Make a finding of the cases of each kind, or of each case where a kind is of groups.

    Args:
        cases: of one split.
        split: its name.

    Returns:
        findings, the most expensive kind first.
    """
    by_kind: dict[str, list[Case]] = {kind: [] for kind in KINDS}
    for case in cases:
        by_kind[case.kind].append(case)
    groups = []
    for kind, found in by_kind.items():
        groups += [[case] for case in found] if KINDS[kind].grouped else [found] if found else []
    return [_finding(group, split) for group in groups]


def ranked(findings: Iterable[Finding]) -> list[Finding]:
    """Sort findings by what they cost, as `KINDS` has them; the larger first within a kind."""
    order = {kind: n for n, kind in enumerate(KINDS)}
    return sorted(findings, key=lambda f: (order[f.kind], -len(f.annotation_ids), -len(f.files)))


def write_findings(findings: Iterable[Finding], file: Path) -> None:
    """Write findings as a JSON list of objects with the fields of `Finding`.

    Raises:
        DataError: the file cannot be written.
    """
    rows = [asdict(finding) for finding in findings]
    with whole_file(file) as out:
        out.write(f"{json.dumps(rows, ensure_ascii=False, indent=1, default=str)}\n".encode())


def replace(value: Any, *path: Any) -> Change:
    """The change that sets a value, whether there was one or not."""
    return {"op": "add", "path": _pointer(path), "value": value}


def remove(*path: Any) -> Change:
    """The change that takes out a value or a row."""
    return {"op": "remove", "path": _pointer(path)}


def _pointer(path: Iterable[Any]) -> str:
    return "".join(f"/{part}" for part in path)


def _finding(cases: list[Case], split: str) -> Finding:
    kind = KINDS[cases[0].kind]
    details = "; ".join(case.detail for case in cases[:_DETAILS])
    more = f"; and {len(cases) - _DETAILS:,} more" if len(cases) > _DETAILS else ""
    return Finding(
        kind=cases[0].kind,
        severity=kind.severity,
        message=f"{_sentence(details + more)} {kind.cost}",
        split=split,
        files=_once(case.files for case in cases),
        annotation_ids=_once(case.annotation_ids for case in cases),
        fix=tuple({"split": split, **change} for case in cases for change in case.fix),
    )


def _sentence(clause: str) -> str:
    """Begin with a capital letter, but leave names of files as they are."""
    first = clause.split(" ", 1)[0]
    return f"{clause[0].upper()}{clause[1:]}." if first.isalpha() else f"{clause}."


def _once(values: Iterable[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Each value once; ids may be of any type that JSON has."""
    return tuple({repr(value): value for value in chain.from_iterable(values)}.values())
