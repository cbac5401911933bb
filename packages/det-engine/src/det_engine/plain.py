"""Configuration and results as plain values: what JSON and a safe checkpoint can hold."""

import dataclasses
import enum
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def to_plain(value: Any) -> Any:
    """`value` in dicts, lists, strings, numbers, booleans and None.

    Dataclasses become dicts, paths strings, enumerations their values, tensors and arrays lists, numbers that are not
    finite None (JSON has none), and anything else its `str`.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_plain(item) for item in value]
    if isinstance(value, enum.Enum):
        return to_plain(value.value)
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        return to_plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """`{"bbox": {"AP": 0.3}}` as `{"bbox/AP": 0.3}`; flat mappings stay as they are."""
    flat: dict[str, float] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}/"))
        else:
            flat[f"{prefix}{key}"] = float(value)
    return flat


def unflatten(values: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten` for mappings nested by one level: what follows the first slash is one key."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        group, slash, name = key.partition("/")
        if slash:
            tree.setdefault(group, {})[name] = value
        else:
            tree[key] = value
    return tree


def named_values(value: Any, prefix: str = "") -> dict[str, Any]:
    """Plain values in nested mappings by dotted name: `{"solver": {"steps": 9}}` as `{"solver.steps": 9}`."""
    if not isinstance(value, Mapping):
        return {prefix: value} if prefix else {}
    named: dict[str, Any] = {}
    for key, inner in value.items():
        named |= named_values(inner, f"{prefix}.{key}" if prefix else str(key))
    return named
