"""Benchmarks as a picture: bars from the record, in colours that light and dark pages bear."""

import json
from collections.abc import Mapping
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
_STYLE = "font-family:system-ui,sans-serif;font-size:14px"


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
        scale = (_WIDTH - _LEFT - 150) / max(mine, theirs)
        parts += [
            _text(0, top + 13, escape(head)),
            _text(0, top + _BAR + 13, escape(detail), opacity=0.7),
            *_bar(top, mine * scale, "#3f51b5", f"{ours} {mine:.2f} s"),
            *_bar(top + _BAR, theirs * scale, "#9e9e9e", f"{peer} {theirs:.2f} s, {theirs / mine:.2f}x"),
        ]
        top += 2 * _BAR + _GAP + 6
    # A colour in the middle, since the picture does not know whether the page is light or dark.
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" fill="#808080" style="{_STYLE}">'
    return head + "".join(parts) + "</svg>\n"


def _bar(top: float, width: float, colour: str, label: str) -> list[str]:
    bar = f'<rect x="{_LEFT}" y="{top}" width="{width:.0f}" height="{_BAR - 2}" fill="{colour}"/>'
    return [bar, _text(_LEFT + width + 6, top + 13, escape(label))]


def _text(x: float, y: float, text: str, opacity: float = 1) -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" opacity="{opacity}">{text}</text>'
