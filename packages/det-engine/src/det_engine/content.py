"""What the entries of a checkpoint are, held against what was read.

A file may be whole and still hold something else than it should: another program wrote it, or a later version of this
one. Everything that reads an entry relies on what is checked here.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from det_engine.errors import EngineError
from det_engine.settings import PRECISIONS

VERSION = 1
"""Of the format; a file of a later one is refused."""
_GROWTH = 16
"""Times the size of a file that its tensors may take: some share their numbers."""

Check = tuple[Callable[[Any], bool], str]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(name, str) for name in value)


def _are_tensors(value: Any) -> bool:
    return _is_mapping(value) and all(isinstance(v, Tensor) and v.layout == torch.strided for v in value.values())


def _is_place(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_count, value)) and value[0] < value[1]


def _is_optimizer(value: Any) -> bool:
    if not _is_mapping(value) or not isinstance(value.get("state"), Mapping):
        return False
    groups = value.get("param_groups")
    return isinstance(groups, list) and all(
        _is_mapping(group) and isinstance(group.get("params"), list) and isinstance(group.get("names"), list)
        for group in groups
    )


def _is_history(value: Any) -> bool:
    return isinstance(value, list) and all(
        _is_mapping(entry) and _is_count(entry.get("step")) and all(map(_is_number, entry.values())) for entry in value
    )


def _is_best(value: Any) -> bool:
    return value is None or (
        _is_mapping(value)
        and isinstance(value.get("metric"), str)
        and _is_number(value.get("value"))
        and _is_count(value.get("step"))
    )


def _are_losses(value: Any) -> bool:
    return (
        _is_mapping(value)
        and isinstance(value.get("names"), list)
        and all(isinstance(name, str) for name in value["names"])
        and isinstance(value.get("rows"), list)
        and all(
            isinstance(row, list) and len(row) == len(value["names"]) - 1 and all(map(_is_number, row))
            for row in value["rows"]
        )
        and _is_count(value.get("overflows", 0))
    )


def _is_scalar(value: Any) -> bool:
    return _is_number(value) or (isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex())


_TENSORS: Check = (_are_tensors, "tensors by name")
_COUNT: Check = (_is_count, "a whole number from 0 on")
_MAPPING: Check = (_is_mapping, "values by name")
_TEXT: Check = (lambda value: isinstance(value, str), "a text")
TRAINING: dict[str, Check] = {
    "model": _TENSORS,
    "average": (lambda value: value is None or _are_tensors(value), "tensors by name, or None"),
    "optimizer": (_is_optimizer, "the state of an optimizer"),
    "scaler": _MAPPING,
    "limit": (_is_scalar, "a number"),
    "random": _MAPPING,
    "step": _COUNT,
    "losses": (_are_losses, "losses of steps"),
    "evaluated_step": _COUNT,
    "history": (_is_history, "evaluations with their steps"),
    "best": (_is_best, "metric, value and step of an evaluation, or None"),
    "seconds": (lambda value: _is_finite(value) and value >= 0, "a number from 0 on"),
    "images": _COUNT,
    "lr_factor": (lambda value: _is_finite(value) and value > 0, "a positive number"),
    "failures": _COUNT,
    "batch_size": (lambda value: _is_count(value) and value > 0, "a whole number from 1 on"),
    "seed": _COUNT,
    "data_fingerprint": _TEXT,
    "surroundings": _MAPPING,
    "config": (lambda value: value is None or _is_mapping(value), "values by name"),
    "failure": _MAPPING,
}
"""Entries of a checkpoint that `train` writes, or of a file in `failures/` (the last one)."""

FAILURE: dict[str, Check] = {
    "model": _TENSORS,
    "batch": _TENSORS,
    "totals": (lambda value: isinstance(value, list) and all(map(_is_number, value)), "a list of numbers"),
    "place": (_is_place, "the index of a part and their count"),
    "seed": _COUNT,
    "step": _COUNT,
    "lr": (_is_number, "a number"),
    "precision": (lambda value: value in PRECISIONS if isinstance(value, str) else False, "a number format"),
    "loss_scale": (lambda value: value is None or (_is_finite(value) and value > 0), "a positive number, or None"),
    "terms": (lambda value: _is_mapping(value) and all(map(_is_number, value.values())), "numbers by name"),
    "config": TRAINING["config"],
}
"""Entries of what a broken step leaves."""


def check_version(state: Mapping[str, Any], path: Path) -> None:
    """Refuse a file of a later version of the format.

    Raises:
        EngineError: it is of a later version, or says none.
    """
    version = state.get("version")
    if not isinstance(version, int) or not _is_count(version):
        raise EngineError(
            f"Checkpoint {path} does not say of which version it is, so it cannot be read. Use another one."
        )
    if version > VERSION:
        raise EngineError(
            f"Checkpoint {path} has version {version} of the format, written by "
            f"{state.get('written_by', 'a later det-engine')}; this one reads up to {VERSION}. Update det-engine."
        )


def check_entries(entries: Mapping[str, Any], expected: Mapping[str, Check], path: Path) -> None:
    """Check the kind of every entry that is there.

    Raises:
        EngineError: one is something else; names the first.
    """
    for name, (holds, kind) in expected.items():
        if name in entries and not holds(entries[name]):
            raise EngineError(f"Checkpoint {path} cannot be used: its entry {name!r} is not {kind}. Use another one.")


def check_size(state: Any, path: Path) -> None:
    """Refuse tensors that would take much more memory than their file, once they are copied.

    One number can stand for all those of a tensor, and many tensors can share theirs.

    Raises:
        EngineError: they would.
        OSError: the file cannot be read.
    """
    declared, seen, waiting = 0, set(), [state]
    while waiting:
        value = waiting.pop()
        if id(value) in seen or not isinstance(value, Tensor | Mapping | list | tuple):
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            declared += value.numel() * value.element_size()
        else:
            waiting += value.values() if isinstance(value, Mapping) else value
    size = path.stat().st_size
    if declared > _GROWTH * size:
        raise EngineError(
            f"Checkpoint {path} cannot be used: its {size} bytes declare tensors of {declared} bytes. Use another one."
        )


def check_present(entries: Mapping[str, Any], names: tuple[str, ...], path: Path, use: str) -> None:
    """Check that no entry is missing.

    Raises:
        EngineError: some are; names them.
    """
    missing = [name for name in names if name not in entries]
    if missing:
        raise EngineError(f"Checkpoint {path} cannot be {use}: it holds no {', '.join(missing)}. Use another one.")


@contextlib.contextmanager
def taking(name: str, path: Path) -> Iterator[None]:
    """A block that gives an entry to whatever understands it, such as an optimizer, which may not.

    Raises:
        EngineError: it does not.
    """
    try:
        yield
    except EngineError:
        raise
    except Exception as error:
        # Whoever restores it (torch, NumPy, Python's generator) raises what its first operation on it does.
        reason = str(error).strip().partition("\n")[0][:160] or type(error).__name__
        raise EngineError(
            f"Checkpoint {path} cannot be used: its entry {name!r} is not what it was ({reason}). Use another one."
        ) from error
