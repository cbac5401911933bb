"""The report of a check as text of 80 columns."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from textwrap import fill

import numpy as np

from det_coco._describe import counted, some
from det_coco.doctor.checkup import Checkup
from det_coco.doctor.findings import Finding
from det_coco.doctor.proposals import Proposals
from det_coco.doctor.statistics import Statistics

WIDTH = 80
FOOTNOTE = "* 5th percentile / median / 95th percentile"
_MOST_CLASSES = 20
_MOST_GROUPS = 3
_MOST_SPLITS = 4


def report(checkup: Checkup, statistics: Mapping[str, Statistics]) -> str:
    """Write what a data set holds and what is wrong with it.

    Args:
        checkup: of the data set.
        statistics: of its splits by name.

    Returns:
        lines of at most 80 columns, but for names that are longer.
    """
    lines = [f"Data: {checkup.root}", ""]
    shown = dict(list(statistics.items())[:_MOST_SPLITS])
    if shown:
        lines += [*columns(["", *shown], overview(shown)), FOOTNOTE, ""]
        lines += [*columns(["class", *shown], class_rows(shown)[:_MOST_CLASSES])]
        more = len(class_rows(shown)) - _MOST_CLASSES
        lines += [*([f"and {counted(more, 'more class')}"] if more > 0 else []), ""]
    lines += findings_text(checkup.findings)
    return "\n".join(lines).rstrip() + "\n"


def overview(statistics: Mapping[str, Statistics]) -> list[list[str]]:
    """Numbers of splits, a row each: its name, and a text for each split."""

    def three(values: np.ndarray, form: str = ".0f") -> str:
        return " / ".join(format(v, form) for v in np.quantile(values, [0.05, 0.5, 0.95])) if len(values) else "-"

    rows = {
        "images": lambda s: f"{s.images:,}",
        "images without objects": lambda s: f"{s.empty:,}",
        "objects": lambda s: f"{s.objects:,}",
        "crowd regions": lambda s: f"{s.crowd:,}",
        "objects with a mask": lambda s: f"{s.masks:,}",
        "objects an image, mean": lambda s: f"{s.objects / max(s.images, 1):.1f}",
        "objects an image, most": lambda s: f"{s.per_image.max(initial=0):,}",
        "objects that overlap by half": lambda s: f"{s.crowding:.1%}",
        "small / medium / large": lambda s: " / ".join(f"{share:.0%}" for share in s.by_size),
        "box side, pixels *": lambda s: three(s.sides),
        "box width / height *": lambda s: three(s.aspects, ".2f"),
        "image width *": lambda s: three(s.widths),
        "image height *": lambda s: three(s.heights),
    }
    return [[name, *(value(s) for s in statistics.values())] for name, value in rows.items()]


def class_rows(statistics: Mapping[str, Statistics]) -> list[list[str]]:
    """Objects of each class in each split, the most frequent class first: its name, and a text for each split."""
    names = dict.fromkeys(name for s in statistics.values() for name in s.class_names)
    counts = {name: [_count(s, name) for s in statistics.values()] for name in names}
    return [[name, *(f"{count:,}" for count in counts[name])] for name in sorted(names, key=lambda n: -sum(counts[n]))]


def columns(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lay out a table, the first column to the left and the others to the right."""
    widths = [max(len(row[n]) for row in (heads, *rows)) for n in range(len(heads))]
    widths[0] = min(widths[0], WIDTH - sum(widths[1:]) - 2 * len(widths[1:]))
    for row in (heads, *rows):
        first = row[0] if len(row[0]) <= widths[0] else row[0][: widths[0] - 3] + "..."
        yield f"{first:<{widths[0]}}" + "".join(f"  {c:>{w}}" for c, w in zip(row[1:], widths[1:], strict=True))


def findings_text(findings: Sequence[Finding]) -> Iterator[str]:
    """Write the findings, the most expensive first, of many groups of one kind a few."""
    if not findings:
        yield "No findings: the data set is clean."
        return
    counts = Counter(finding.severity for finding in findings)
    yield f"{counted(len(findings), 'finding')}: {', '.join(counted(n, severity) for severity, n in counts.items())}"
    for (kind, split), group in groupby(findings, key=lambda finding: (finding.kind, finding.split)):
        members = list(group)
        yield ""
        yield fill(f"{members[0].severity.upper()} {members[0].title} ({split}) [{kind}]", WIDTH)
        for finding in members[:_MOST_GROUPS]:
            yield _wrapped(finding.message)
        if len(members) > _MOST_GROUPS:
            yield _wrapped(f"And {counted(len(members) - _MOST_GROUPS, 'more group')} of this kind.")
        yield _wrapped(_about(members))


def _about(findings: Sequence[Finding]) -> str:
    """What the findings of a kind are about, and what can be done."""
    files, ids = ({str(v) for f in findings for v in values(f)} for values in (_files_of, _ids_of))
    parts = [counted(len(files), "picture")] * bool(files) + [counted(len(ids), "annotation")] * bool(ids)
    changes = sum(len(finding.fix) for finding in findings)
    mended = f"--fix makes {counted(changes, 'change')}" if changes else "--fix changes nothing"
    return f"({'; '.join([*([' and '.join(parts)] if parts else []), mended])}.)"


def _files_of(finding: Finding) -> Sequence[object]:
    return finding.files


def _ids_of(finding: Finding) -> Sequence[object]:
    return finding.annotation_ids


def _wrapped(text: str) -> str:
    indent = "  "
    return fill(some([text], 1) if len(text) > 4000 else text, WIDTH, initial_indent=indent, subsequent_indent=indent)


def _count(statistics: Statistics, name: str) -> int:
    return sum(int(c) for c, known in zip(statistics.counts, statistics.class_names, strict=True) if known == name)


def proposals_text(proposals: Proposals) -> str:
    """Write the options that fit a data set, with a command line to paste."""
    lines = ["Options that fit:"]
    lines += [_wrapped(f"{p.option} {p.value}: {p.reason}.") for p in proposals.changed]
    lines += [_wrapped(sentence) for sentence in proposals.kept]
    return "\n".join([*lines, "", proposals.command, ""])
