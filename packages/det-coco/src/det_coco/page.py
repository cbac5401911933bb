"""One HTML page that needs nothing else: tables that sort, pictures and plots within it, light and dark, on any width.

What makes up a page is a piece of HTML: the functions here give one each and escape all text, so a page is a list of
their values. Styles and the script are `page.css` and `page.js` beside this file.
"""

import base64
import html
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from PIL import Image

from det_coco.outputs import whole_file


class Html(str):
    """A text that is HTML already, which no function here escapes again."""

    __slots__ = ()


Cell = str | int | float | None


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        title: its head.
        format: for numbers, as for :func:`format`; by default integers whole and others with three digits.
        hint: a sentence that appears where the pointer rests on the head.
    """

    title: str
    format: str = ""
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of a page with a heading, which the list of contents names.

    Attributes:
        title: the heading, no other section has it.
        pieces: what it holds.
    """

    title: str
    pieces: Sequence[Html] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page.

    Attributes:
        title: its heading and the title of its window.
        summary: what comes before the list of contents.
        sections: one after the other.
    """

    title: str
    summary: Sequence[Html] = field(repr=False)
    sections: Sequence[Section] = field(repr=False)

    def html(self) -> str:
        """The whole page as HTML."""
        style, script = (resources.files("det_coco").joinpath(name).read_text("utf-8") for name in _FILES)
        contents = "".join(f'<li><a href="#{_anchor(s.title)}">{_escape(s.title)}</a></li>' for s in self.sections)
        sections = "".join(
            f'<section id="{_anchor(s.title)}"><h2>{_escape(s.title)}</h2>\n{_joined(s.pieces)}</section>\n'
            for s in self.sections
        )
        return (
            f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{_escape(self.title)}</title>\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">\n'
            f"<style>{style}</style></head>\n<body><main><h1>{_escape(self.title)}</h1>\n{_joined(self.summary)}"
            f"<nav><ol>{contents}</ol></nav>\n{sections}</main>\n<script>{script}</script></body></html>\n"
        )

    def write(self, path: str | Path) -> Path:
        """Write the page.

        Args:
            path: the file; its folder is made.

        Returns:
            the path.

        Raises:
            DataError: it cannot be written.
        """
        path = Path(path)
        with whole_file(path) as file:
            file.write(self.html().encode())
        return path


_FILES = ("page.css", "page.js")
_LONG = 40
"""Characters above which the text of a cell takes several lines."""


def text(words: str) -> Html:
    """A paragraph."""
    return Html(f"<p>{_escape(words)}</p>\n")


def line(*words: str) -> Html:
    """Words and links in a row, as the caption of a figure or the cell of a table."""
    return Html(" ".join(map(_escape, words)))


def heading(words: str) -> Html:
    """A heading within a section."""
    return Html(f"<h3>{_escape(words)}</h3>\n")


def link(target: str | Path, words: str) -> Html:
    """Words that open a file or an address.

    Args:
        target: an address, or the path of a file.
        words: what is to be read.
    """
    address = target.absolute().as_uri() if isinstance(target, Path) else target
    return Html(f'<a href="{_escape(address)}">{_escape(words)}</a>')


def facts(values: Mapping[str, Cell]) -> Html:
    """A list of names with their values."""
    rows = "".join(f"<dt>{_escape(name)}</dt><dd>{_shown(value, '')}</dd>" for name, value in values.items())
    return Html(f"<dl>{rows}</dl>\n")


def folded(title: str, pieces: Iterable[Html]) -> Html:
    """Pieces that a click on a title shows; on paper they are always there."""
    return Html(f"<details><summary>{_escape(title)}</summary>\n{_joined(pieces)}</details>\n")


def table(columns: Sequence[Column | str], rows: Iterable[Sequence[Cell]], *, sortable: bool = True) -> Html:
    """A table whose columns sort by a click on their heads; a wide one scrolls within the page.

    Args:
        columns: its columns.
        rows: a cell for each column; None stands for what there is not, and sorts last.
        sortable: whether the order of the rows means nothing.

    Raises:
        ValueError: a row has more or fewer cells than there are columns.
    """
    heads = [column if isinstance(column, Column) else Column(column) for column in columns]
    rows = [list(row) for row in rows]
    if any(len(row) != len(heads) for row in rows):
        raise ValueError(f"rows must have a cell for each of the {len(heads)} columns.")
    numbers = [any(_number(row[n]) is not None for row in rows) for n in range(len(heads))]
    top = "".join(_head(head, number, sortable) for head, number in zip(heads, numbers, strict=True))
    body = "".join(f"<tr>{''.join(map(_cell, row, [head.format for head in heads], numbers))}</tr>\n" for row in rows)
    return Html(f'<div class="wide"><table><thead><tr>{top}</tr></thead>\n<tbody>{body}</tbody></table></div>\n')


def picture(image: Image.Image, caption: str = "", *, width: int = 640, quality: int = 70) -> Html:
    """A picture within the page, as WebP.

    Args:
        image: the picture.
        caption: what is written below, text or HTML.
        width: pixels; a wider picture is reduced.
        quality: of the compression, up to 100.
    """
    if image.width > width:
        image = image.resize((width, max(1, round(image.height * width / image.width))), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "WEBP", quality=quality, method=2)
    source = f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
    size = f'width="{image.width}" height="{image.height}"'
    return Html(f'<figure><img src="{source}" {size} alt="" loading="lazy">{caption_of(caption)}</figure>\n')


def shaded(value: Cell, share: float) -> Html:
    """A cell of a table whose background tells how large its value is.

    Args:
        value: what is written.
        share: 0 to 1, of the darkest shade.
    """
    return Html(f'<span class="shaded" style="--share: {round(100 * share)}%">{_shown(value, "")}</span>')


def grid(pieces: Iterable[Html]) -> Html:
    """Pictures or plots beside each other, as many in a row as there is room for."""
    return Html(f'<div class="grid">{_joined(pieces)}</div>\n')


def caption_of(words: str) -> Html:
    """The caption of a figure, or nothing where there are no words."""
    return Html(f"<figcaption>{_escape(words)}</figcaption>" if words else "")


def _joined(pieces: Iterable[Html]) -> str:
    return "".join(_escape(piece) for piece in pieces)


def _escape(words: Any) -> str:
    return str(words) if isinstance(words, Html) else html.escape(str(words))


def _anchor(title: str) -> str:
    return html.escape("-".join("".join(c if c.isalnum() else " " for c in title.lower()).split()))


def _number(value: Any) -> float | None:
    """The finite number that a cell holds, or None."""
    is_number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None


def _head(column: Column, number: bool, sortable: bool) -> str:
    title = f"<button>{_escape(column.title)}</button>" if sortable else _escape(column.title)
    hint = f' title="{_escape(column.hint)}"' if column.hint else ""
    return f"<th{' class=number' if number else ''}{hint}>{title}</th>"


def _cell(value: Cell, format_: str, number: bool) -> str:
    key = f' data-key="{_number(value):.9g}"' if _number(value) is not None else ""
    is_long = isinstance(value, str) and not isinstance(value, Html) and len(value) > _LONG
    kind = " class=number" if number else " class=long" if is_long else ""
    return f"<td{kind}{key}>{_shown(value, format_)}</td>"


def _shown(value: Cell, format_: str) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if _number(value) is not None:
        return _escape(format(value, format_ or (",d" if isinstance(value, Integral) else ".3f")))
    return _escape(value)
