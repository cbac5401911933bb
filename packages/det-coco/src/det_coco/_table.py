"""The annotations of a file as columns, before they are compared with images and categories.

`N` annotations in the order of the file, `Q` polygons, `P` points, `R` runs, `K` numbers of keypoints.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from det_coco._compiled import compiled
from det_coco._json import FileText, parse_json
from det_coco._records import row_of
from det_coco.errors import DataError

# `first:last` are the bytes of the annotation in the file. `area` is NaN where there is none and negative where it
# cannot be one. `polygons`, `runs` and `keypoints` count what the other columns of the `Table` hold. `num_keypoints` is
# negative where there is none (`_records.MISSING`) or where it cannot be one. `height` and `width` are those of a
# run-length code, 0 without one. Where `odd` is set, masks and keypoints are still in a record.
ROW = np.dtype(
    {
        "names": [
            "first", "last", "id", "image_id", "category_id", "box", "area", "polygons", "runs", "keypoints",
            "num_keypoints", "height", "width", "crowd", "ignored", "odd",
        ],
        "formats": ["i8", "i8", "i8", "i8", "i8", ("f8", 4), "f8", *["i4"] * 6, *["u1"] * 3],
        "offsets": [0, 8, 16, 24, 32, 40, 72, 80, 84, 88, 92, 96, 100, 104, 105, 106],
        "itemsize": 112,
    }
)  # fmt: skip


@dataclass(eq=False)
class Table:
    """Annotations in file order.

    Attributes:
        rows: `[N]` of `ROW`.
        records: the rows that are `odd`, as JSON has them, by their numbers.
        lengths: int32 `[Q]` points of each polygon.
        points: float64 `[P, 2]` x, y.
        runs: int32 `[R]`.
        keypoints: float64 `[K]`.
        text: what `first` and `last` of rows are places in.
    """

    rows: np.ndarray
    records: dict[int, dict[str, Any]]
    lengths: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int32))
    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    runs: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int32))
    keypoints: np.ndarray = field(default_factory=lambda: np.zeros(0))
    text: bytes = b""

    @staticmethod
    def of(records: Sequence[Any]) -> "Table":
        """Make a table of records `[N]`, all of them odd."""
        rows = np.zeros(len(records), dtype=ROW)
        rows["odd"] = 1
        return Table(rows, dict(enumerate(records)))

    def fill(self, file: Path) -> None:
        """Read the odd rows from their records.

        Args:
            file: named in messages.

        Raises:
            DataError: a record cannot be used.
        """
        for number, record in self.records.items():
            self.rows[number] = row_of(file, number, record)

    def record(self, number: int) -> dict[str, Any]:
        """A row as JSON has it."""
        if number in self.records:
            return self.records[number]
        first, last = self.rows[["first", "last"]][number]
        return json.loads(self.text[first:last])


def split_text(file: Path, source: FileText) -> tuple[Any, Table | None]:
    """Read the text of an annotation file, with the compiled reader where there is one; both read the same.

    Args:
        file: named in messages.
        source: the file's bytes, which are taken.

    Returns:
        the content as JSON has it, and, from the compiled reader, its annotations, which are then left out of it.

    Raises:
        DataError: it is no JSON.
    """
    text = source.take()
    found = None if compiled is None else compiled.scan(text)
    if found is not None:
        first, last, rows, lengths, points, runs, keypoints = found
        odd = np.flatnonzero(rows["odd"]).tolist()
        spans = [text[a:b] for a, b in rows[["first", "last"]][odd].tolist()]
        try:
            content = parse_json(file, text[:first] + b"[]" + text[last:])
            records = parse_json(file, b"[" + b",".join(spans) + b"]")
        except DataError:
            return parse_json(file, text), None  # knows the place in the file
        table = Table(rows, dict(zip(odd, records, strict=True)), lengths, points.reshape(-1, 2), runs, keypoints, text)
        return content, table
    return parse_json(file, text), None
