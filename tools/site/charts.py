"""Pictures as SVG, in colours that light and dark pages bear: benchmarks as bars, and the packages as a graph."""

import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

_WORK = {
    ("train_step", None): "training step",
    ("infer", None): "inference",
    ("yolact", "picture"): "a picture",
    ("yolact", "training step"): "training step",
}
_BAR, _GAP, _LEFT, _WIDTH = 18, 14, 250, 640
_COLOURS = "#3f51b5", "#9e9e9e"
_STYLE = "font-family:system-ui,sans-serif;font-size:14px"
_FONT = 'font-family="system-ui,sans-serif"'


def benchmark_chart(record: Path) -> str:
    """An SVG with the seconds of the newest row of each measurement, ours above its peer's.

    Args:
        record: `results.jsonl`, the oldest rows first.
    """
    newest: dict[str, tuple[str, float, str, float]] = {}
    for line in record.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        work = _WORK.get((row["bench"], row.get("work")))
        seconds: Mapping[str, Any] = row.get("seconds") or {}
        peer = next((name for name in seconds if not name.startswith("ours")), None)
        if work is not None and peer is not None and row["device"].startswith("x86_64"):
            size = " x ".join(map(str, row["size"])) if "size" in row else ""
            title = f"{row['model']}, {work}".replace("_", " ")
            detail = f"batch {row['batch']}{', ' if size else ''}{size}"
            newest[f"{title}|{detail}"] = ("ours", seconds["ours"], peer, seconds[peer])
    return _svg(newest)


def _svg(rows: Mapping[str, tuple[str, float, str, float]]) -> str:
    height = len(rows) * (2 * _BAR + _GAP + 6) + _GAP
    parts, top = [], _GAP
    for title, (ours, mine, peer, theirs) in rows.items():
        head, _, detail = title.partition("|")
        scale = (_WIDTH - _LEFT - 190) / max(mine, theirs)
        parts += [
            _text(0, top + 13, escape(head)),
            _text(0, top + _BAR + 13, escape(detail), opacity=0.7),
            *_bar(top, mine * scale, _COLOURS[0], f"{ours} {mine:.2f} s"),
            *_bar(top + _BAR, theirs * scale, _COLOURS[1], f"{peer} {theirs:.2f} s, {theirs / mine:.2f}x"),
        ]
        top += 2 * _BAR + _GAP + 6
    return _whole(parts, height)


def bars(rows: Sequence[tuple[str, Sequence[tuple[float, str]]]]) -> str:
    """An SVG with one or two bars for each row, all of one scale.

    Args:
        rows: names, each with the lengths of its bars and what stands beside them.
    """
    longest = max(length for _, own in rows for length, _ in own)
    parts, top = [], _GAP
    for name, own in rows:
        parts.append(_text(0, top + 13, escape(name)))
        for colour, (length, label) in zip(_COLOURS, own, strict=False):
            parts += _bar(top, length / longest * (_WIDTH - _LEFT - 190), colour, label)
            top += _BAR
        top += _GAP
    return _whole(parts, top)


def _whole(parts: Sequence[str], height: int) -> str:
    # A colour in the middle, since the picture does not know whether the page is light or dark.
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" fill="#808080" style="{_STYLE}">'
    return head + "".join(parts) + "</svg>\n"


def _bar(top: float, width: float, colour: str, label: str) -> list[str]:
    bar = f'<rect x="{_LEFT}" y="{top}" width="{width:.0f}" height="{_BAR - 2}" fill="{colour}"/>'
    return [bar, _text(_LEFT + width + 6, top + 13, escape(label))]


def _text(x: float, y: float, text: str, opacity: float = 1) -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" opacity="{opacity}">{text}</text>'


_GRAPH_WIDTH, _BOX_WIDTH, _BOX_HEIGHT, _SPACE = 860, 275, 54, 48
_NODE = re.compile(r"^    (\w+)\[\"<b>(.+?)</b><br>(.+?)\"\]$", flags=re.MULTILINE)
_ARROW = re.compile(r"^    (\w+) --> (\w+)$", flags=re.MULTILINE)


def graph(page: str) -> str:
    """An SVG of the graph that a page draws in Mermaid's language, whose own program would be loaded from elsewhere.

    Args:
        page: With lines `name["<b>title</b><br>text"]` and `name --> other`.
    """
    titles = {name: (title, text) for name, title, text in _NODE.findall(page)}
    arrows = _ARROW.findall(page)
    levels: dict[str, int] = {}
    for name in titles:  # as far from the top as the longest way to it
        _lower(name, 0, arrows, levels)
    rows = [[name for name in titles if levels[name] == level] for level in range(max(levels.values()) + 1)]
    places = {
        name: (_GRAPH_WIDTH * (column + 1) / (len(row) + 1), level * (_BOX_HEIGHT + _SPACE) + 4)
        for level, row in enumerate(rows)
        for column, name in enumerate(row)
    }
    height = len(rows) * (_BOX_HEIGHT + _SPACE)
    parts = [_arrow(*places[one], *places[other]) for one, other in arrows]
    for name, (x, y) in places.items():
        title, text = titles[name]
        box = f'<rect x="{x - _BOX_WIDTH / 2:.0f}" y="{y}" width="{_BOX_WIDTH}" height="{_BOX_HEIGHT}" rx="6"'
        parts.append(f'{box} fill="#3f51b5"/>')
        half, _, rest = text.partition(": ")
        for line, (words, size) in enumerate(((title, 15), (half, 11), (rest, 10))):
            middle = f'text-anchor="middle" fill="white" font-size="{size}"'
            parts.append(f'<text x="{x:.0f}" y="{y + 17 + 14 * line}" {middle}>{escape(words)}</text>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_GRAPH_WIDTH} {height}" {_FONT}>'
    return head + "".join(parts) + "</svg>\n"


def _lower(name: str, level: int, arrows: list[tuple[str, str]], levels: dict[str, int]) -> None:
    if level >= levels.get(name, -1) + (name in levels):
        levels[name] = level
        for one, other in arrows:
            if one == name:
                _lower(other, level + 1, arrows, levels)


def _arrow(x: float, y: float, to_x: float, to_y: float) -> str:
    y += _BOX_HEIGHT
    bend = (y + to_y) / 2
    way = f"M{x:.0f},{y} C{x:.0f},{bend} {to_x:.0f},{bend} {to_x:.0f},{to_y}"
    way += " l-4,-7 m4,7 l4,-7"
    return f'<path d="{way}" fill="none" stroke="#909090" stroke-width="1.2"/>'
