"""`metrics.jsonl`: one line per log interval and evaluation, whole across interruptions."""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from det_engine.errors import EngineError
from det_engine.plain import to_plain


class MetricsLog:
    """Appends lines to a `metrics.jsonl`; each has `kind` ("train" or "evaluation") and `step`.

    Args:
        path: the file.
        step: step at which the run starts or goes on; lines after it, left by an interrupted run, are removed, as
            is a torn last line.
        evaluated_step: last step whose evaluation counts; lines of later evaluations are removed.

    Raises:
        EngineError: the file cannot be written.
    """

    def __init__(self, path: Path, step: int = 0, evaluated_step: int = 0) -> None:
        self._path = path
        try:
            limits = {"train": step, "evaluation": evaluated_step}
            kept = [line for line in read_metrics(path) if line["step"] <= limits.get(line["kind"], step)]
            temporary = path.with_name(f"{path.name}.writing")
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
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
    """The complete lines of a `metrics.jsonl`; an empty list where there is no file."""
    lines = []
    if path.exists():
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and {"kind", "step"} <= line.keys():
                lines.append(line)
    return lines
