"""The report of a check as one HTML page with pictures."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import islice

import numpy as np
from PIL import Image

from det_coco import page as html
from det_coco._describe import counted, some
from det_coco.doctor.boxes import corners_of
from det_coco.doctor.checkup import Checkup
from det_coco.doctor.findings import Finding
from det_coco.doctor.kinds import KINDS
from det_coco.doctor.proposals import Proposals
from det_coco.doctor.records import Records
from det_coco.doctor.statistics import Statistics
from det_coco.doctor.terminal import FOOTNOTE, class_rows, overview
from det_coco.drawn import Drawn
from det_coco.errors import DataError
from det_coco.images import decode_image, load_image
from det_coco.page import Html, Page, Section
from det_coco.pictures import draw
from det_coco.plots import axes, plot

_PICTURES = 4
"""Pictures of a finding."""
_WITH_PICTURES = 3
"""Findings of one kind with pictures."""
_CHANGES = 20
"""Changes of a finding that are listed."""
_WIDTH = 400


def report_page(checkup: Checkup, statistics: Mapping[str, Statistics], proposals: Proposals | None = None) -> Page:
    """Make the page of a check.

    Args:
        checkup: of the data set.
        statistics: of its splits by name.
        proposals: options that fit the data, or nothing.
    """
    counts = dict.fromkeys(("error", "warning", "note"), 0)
    for finding in checkup.findings:
        counts[finding.severity] += 1
    sections = [Section(title="Findings", pieces=[_summary(checkup.findings)])]
    sections += [Section(title="Options that fit", pieces=list(_proposals(proposals)))] if proposals else []
    sections += [_section(kind, checkup) for kind in dict.fromkeys(finding.kind for finding in checkup.findings)]
    sections += [Section(title="What it holds", pieces=list(_numbers(statistics)))] if statistics else []
    sections += [Section(title="Classes", pieces=[_classes(statistics)])] if statistics else []
    folders = ", ".join(f"{records.name}: {records.file}" for records in checkup.splits)
    found = ", ".join(counted(count, severity) for severity, count in counts.items())
    summary = [html.facts({"Data": str(checkup.root), "Splits": folders, "Found": found})]
    return Page(title=f"Check of {checkup.root.name or checkup.root}", summary=summary, sections=sections)


def _summary(findings: Sequence[Finding]) -> Html:
    if not findings:
        return html.text("None: the data set is clean.")
    rows = [
        (
            finding.severity,
            finding.title,
            finding.split,
            len(finding.files),
            len(finding.annotation_ids),
            len(finding.fix),
        )
        for finding in findings
    ]
    heads = ["severity", "what", "split", "pictures", "annotations", "changes of --fix"]
    return html.table(heads, rows)


def _proposals(proposals: Proposals) -> Iterator[Html]:
    if proposals.changed:
        rows = [(proposal.option, proposal.value, proposal.reason) for proposal in proposals.changed]
        yield html.table(["option", "value", "why"], rows, sortable=False)
    yield from map(html.text, proposals.kept)
    yield Html(f"<p><code>{escape(proposals.command)}</code></p>\n")


def _numbers(statistics: Mapping[str, Statistics]) -> Iterator[Html]:
    yield html.table(["", *statistics], overview(statistics), sortable=False)
    yield html.text(FOOTNOTE)
    try:
        yield html.grid(_plots(statistics))
    except ImportError as error:
        yield html.text(str(error))


def _plots(statistics: Mapping[str, Statistics]) -> list[Html]:
    sides = {name: s.sides for name, s in statistics.items()}
    aspects = {name: s.aspects for name, s in statistics.items()}
    each = {name: s.per_image for name, s in statistics.items()}
    pictures = {name: np.sqrt(s.widths.astype(float) * s.heights) for name, s in statistics.items()}
    return [
        _histogram("Size of objects", "square root of the box's area, pixels", sides, logarithmic=True),
        _histogram("Aspect of objects", "width / height of the box", aspects, logarithmic=True),
        _histogram("Objects an image", "objects", each, logarithmic=False),
        _histogram("Size of images", "square root of the area, pixels", pictures, logarithmic=False),
    ]


def _histogram(title: str, x: str, values: Mapping[str, np.ndarray], *, logarithmic: bool) -> Html:
    drawn = axes(title, x, "share, %")
    everything = np.concatenate([v for v in values.values() if len(v)] or [np.ones(1)]).astype(float)
    low, high = everything.min(), max(everything.max(), everything.min() + 1)
    bins = np.geomspace(max(low, 1e-3), high, 30) if logarithmic else np.linspace(low, high, 30)
    for name, numbers in values.items():
        if len(numbers):
            weights = np.full(len(numbers), 100 / len(numbers))
            drawn.hist(numbers, bins=bins.tolist(), weights=weights, histtype="step", label=name, linewidth=1.5)
    if logarithmic:
        drawn.set_xscale("log")
        # Powers of ten would be written as formulas.
        drawn.xaxis.set_major_formatter("{x:g}")
        drawn.xaxis.set_minor_formatter("")
    return plot(drawn)


def _classes(statistics: Mapping[str, Statistics]) -> Html:
    rows = [[name, *(int(count.replace(",", "")) for count in counts)] for name, *counts in class_rows(statistics)]
    return html.table(["class", *statistics], rows)


def _section(kind: str, checkup: Checkup) -> Section:
    findings = [finding for finding in checkup.findings if finding.kind == kind]
    pieces = []
    for number, finding in enumerate(findings):
        pieces.append(html.heading(finding.split))
        pieces.append(html.text(finding.message))
        if number < _WITH_PICTURES:
            pieces.append(html.grid(islice(_pictures(finding, checkup), _PICTURES)))
        pieces += _details(finding)
    return Section(title=KINDS[kind].title, pieces=pieces)


def _details(finding: Finding) -> Iterator[Html]:
    if len(finding.files) > 1 or len(finding.annotation_ids) > 1:
        names = html.text(f"Pictures: {some(finding.files, 200) or '-'}")
        ids = html.text(f"Annotations: {some(finding.annotation_ids, 200) or '-'}")
        yield html.folded("Which", [names, ids])
    if finding.fix:
        rows = [(c["split"], c["op"], c["path"], some([c["value"]]) if "value" in c else "") for c in finding.fix]
        more = [html.text(f"and {len(rows) - _CHANGES:,} more")] if len(rows) > _CHANGES else []
        listed = html.table(["split", "change", "where", "value"], rows[:_CHANGES], sortable=False)
        yield html.folded(f"{counted(len(rows), 'change')} that --fix makes", [listed, *more])


def _pictures(finding: Finding, checkup: Checkup) -> Iterator[Html]:
    """Pictures of a finding, with the boxes that it is about."""
    ids = {repr(number) for number in finding.annotation_ids}
    names = finding.split.split(", ")
    for file in finding.files:
        for records, paths in zip(checkup.splits, checkup.paths, strict=True):
            if records.name not in names or file not in records.file_names:
                continue
            position = records.file_names.index(file)
            try:
                held = records.held.get(int(records.image_rows[position]))
                image = decode_image(held, file) if held else load_image(paths[position])
            except DataError:
                continue
            rows = [n for n in np.flatnonzero(records.image == position).tolist() if repr(records.ids[n]) in ids]
            yield html.picture(_drawn(image, records, rows), f"{records.name}/{file}", width=_WIDTH)


def _drawn(image: np.ndarray, records: Records, rows: Sequence[int]) -> Image.Image:
    """A picture, reduced to what the page shows, with the boxes of some annotations as the file has them."""
    factor = min(1.0, _WIDTH / max(image.shape[:2]))
    size = max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor))
    small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
    numbers = list(records.categories)
    shown = [n for n in rows if np.isfinite(records.boxes[n]).all()]
    corners = corners_of(records.boxes[shown]) * factor
    # Where a box lies outside, what is drawn is the side of the picture that it lies beyond.
    inside = corners.clip(-1, np.tile(size, 2))
    inside[:, 2:] = np.maximum(inside[:, 2:], inside[:, :2])
    labels = np.array([numbers.index(int(records.category[n])) for n in shown], dtype=np.int64)
    return draw(small, Drawn(boxes=inside, labels=labels), records.categories, min_side=min(size))
