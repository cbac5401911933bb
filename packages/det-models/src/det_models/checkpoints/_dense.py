"""How the outputs of one-stage heads differ between systems: which a single tensor does not tell.

Here the channels of a cell count its anchors, by size and then by ratio, and for each its classes without background.
Shapes: `A` anchors per cell, `C` classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    Tensors = Mapping[str, Tensor]

__all__ = ["NEVER", "by_ratio", "by_size", "cells_of", "with_background", "without_background"]

NEVER = -1000.0
"""Logit of a class that does not exist; its probability is 0 in float32."""

_RATIOS = 3
"""Of anchors in mmdetection's published detectors."""


def cells_of(tensors: Tensors) -> int:
    """A of a one-stage detector: its boxes have four numbers each; 0 for other detectors."""
    boxes = next((tensors[name] for name in ("head.boxes.weight", "head.boxes.bias") if name in tensors), None)
    return 0 if boxes is None else len(boxes) // 4


def without_background(tensors: Tensors) -> dict[str, Tensor]:
    """Without torchvision's class 0, which nothing learns and nothing detects."""
    return _changed(tensors, ("classes",), lambda rows, _name: rows[:, 1:])


def with_background(tensors: Tensors) -> dict[str, Tensor]:
    """The inverse: with a class 0 that never wins."""
    import torch

    def add(rows: Tensor, name: str) -> Tensor:
        value = NEVER if name.endswith("bias") else 0.0
        return torch.cat((torch.full_like(rows[:, :1], value), rows), 1)

    return _changed(tensors, ("classes",), add)


def by_size(tensors: Tensors) -> dict[str, Tensor]:
    """From mmdetection's anchors, which go by ratio and then by size, to ours."""
    return _changed(tensors, ("classes", "boxes"), lambda rows, _name: _regrouped(rows, _RATIOS))


def by_ratio(tensors: Tensors) -> dict[str, Tensor]:
    """The inverse of :func:`by_size`."""
    return _changed(tensors, ("classes", "boxes"), lambda rows, _name: _regrouped(rows, len(rows) // _RATIOS))


def _regrouped(rows: Tensor, outer: int) -> Tensor:
    """Rows [A, ...] of `outer` groups, as many groups as each had rows."""
    if len(rows) % _RATIOS:
        return rows
    return rows.unflatten(0, (outer, -1)).transpose(0, 1).flatten(0, 1)


def _changed(tensors: Tensors, modules: tuple[str, ...], change: Callable[[Tensor, str], Tensor]) -> dict[str, Tensor]:
    """With the rows [A, ...] of some modules of the head changed."""
    found, cells = dict(tensors), cells_of(tensors)
    for name in (f"head.{module}.{kind}" for module in modules for kind in ("weight", "bias")):
        if cells and name in tensors:
            found[name] = change(tensors[name].unflatten(0, (cells, -1)), name).flatten(0, 1)
    return found
