"""`metrics.jsonl`: one line per log interval and evaluation, whole across interruptions."""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from det_engine.errors import EngineError
from det_engine.plain import to_plain

_LARGEST = 2**53
"""Whole numbers from here on are not what was written."""


class MetricsLog:
    """Appends lines to a `metrics.jsonl`; each has `kind` ("train" or "evaluation") and `step`.

    Args:
        path: the file.
        step: step at which the run starts or goes on; lines after it, left by an interrupted run, are removed, as
            is a torn last line.
        evaluated_step: last step whose evaluation counts; lines of later evaluations are removed.

    Attributes:
        damaged: lines that could not be read, which are now in `metrics.damaged.jsonl`.

    Raises:
        EngineError: the file cannot be written.
    """

    def __init__(self, path: Path, step: int = 0, evaluated_step: int = 0) -> None:
        self._path = path
        self.damaged = 0
        try:
            limits = {"train": step, "evaluation": evaluated_step}
            lines, damaged = _read(path)
            kept = [line for line in lines if line["step"] <= limits.get(line["kind"], step)]
            if damaged:
                self.damaged = len(damaged)
                aside = path.with_name(f"{path.stem}.damaged{path.suffix}")
                if aside.is_symlink():  # to who knows where
                    aside.unlink()
                with aside.open("ab") as file:
                    file.write(b"".join(line + b"\n" for line in damaged))
            temporary = path.with_name(f"{path.name}.writing")
            temporary.unlink(missing_ok=True)
            with temporary.open("x", encoding="utf-8") as file:
                file.write("".join(json.dumps(line) + "\n" for line in kept))
            temporary.replace(path)
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise EngineError(f"Cannot write {path}: {error.strerror or error}.") from error

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Append a line; it is with the operating system when this returns.

        Raises:
            EngineError: the disk is full.
        """
        try:
            self._file.write(json.dumps(to_plain({"kind": kind, "step": step, **values})) + "\n")
            self._file.flush()
        except OSError as error:
            raise EngineError(f"Cannot write {self._path}: {error.strerror or error}.") from error

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):
            self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a `metrics.jsonl`; an empty list where there is no file.

    Raises:
        EngineError: it cannot be read.
    """
    try:
        return _read(path)[0]
    except OSError as error:
        raise EngineError(f"{path} cannot be read: {error.strerror or error}.") from error


def _read(path: Path) -> tuple[list[dict[str, Any]], list[bytes]]:
    """The lines that say what they should, and those that do not; one that is torn at the end counts as none."""
    lines, damaged = [], []
    *texts, torn = path.read_bytes().split(b"\n") if path.exists() else [b""]
    for text in (*texts, torn):
        line = _line(text)
        if line is not None:
            lines.append(line)
        elif text.strip() and text is not torn:
            damaged.append(text)
    return lines, damaged


def _line(text: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
        kind, step = line.pop("kind"), line["step"]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    is_whole = isinstance(kind, str) and type(step) is int and step >= 0 and all(map(_is_value, line.values()))
    return {"kind": kind, **line} if is_whole else None


def _is_value(value: Any) -> bool:
    """Whether it is a number that anything can be computed with, or None."""
    return value is None or isinstance(value, float) or (isinstance(value, int) and abs(value) < _LARGEST)
