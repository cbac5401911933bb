"""Metrics as a table for a terminal."""

from collections.abc import Mapping

_WIDTH = 80
_CELL = len("0.000")


def table(metrics: Mapping[str, float], width: int = _WIDTH) -> str:
    """Lay out metrics: what is measured in rows, how in columns.

    Args:
        metrics: values by name, such as `bbox/AP`: row, slash, column. Names with another slash, such as the AP of a
            class, are left out; -1, COCO's word for nothing to measure, is a dash.
        width: characters of a line at most; columns that do not fit stand below the others.

    Returns:
        lines without a line break at the end.
    """
    rows: dict[str, dict[str, str]] = {}
    for name, value in metrics.items():
        if name.count("/") < 2:
            row, _, column = name.rpartition("/")
            rows.setdefault(row, {})[column] = "-" if value == -1 else f"{value:.3f}"
    blocks: dict[tuple[str, ...], list[str]] = {}
    for row, cells in rows.items():
        blocks.setdefault(tuple(cells), []).append(row)
    lines: list[str] = []
    for columns, names in blocks.items():
        lines += _block(columns, {name: rows[name] for name in names}, width)
    return "\n".join(lines)


def _block(columns: tuple[str, ...], rows: Mapping[str, Mapping[str, str]], width: int) -> list[str]:
    """The lines of rows that have the same columns."""
    first = max(map(len, rows))
    widths = [max(_CELL, len(column), *(len(cells[column]) for cells in rows.values())) + 1 for column in columns]
    lines: list[str] = []
    start = 0
    while start < len(columns):
        stop = start + 1
        while stop < len(columns) and first + sum(widths[start : stop + 1]) <= width:
            stop += 1
        part = list(zip(columns[start:stop], widths[start:stop], strict=True))
        lines.append(" " * first + "".join(f"{column:>{size}}" for column, size in part))
        lines += [f"{row:<{first}}" + "".join(f"{cells[c]:>{size}}" for c, size in part) for row, cells in rows.items()]
        start = stop
    return lines
