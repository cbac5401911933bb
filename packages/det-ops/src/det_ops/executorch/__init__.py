"""Operators in ExecuTorch: what `ExportedProgram.run_decompositions` needs to know of them.

An operator's form is that of its reference, unless a module here has a function of the operator's name. All are made of
operators that ExecuTorch's runtime has, of static shapes, batch included. Nothing here imports ExecuTorch.
"""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from det_ops._operator import OPERATORS
from det_ops.executorch import aten

__all__ = ["decompositions"]


def decompositions() -> dict[Any, Callable[..., Any]]:
    """Functions in plain PyTorch, by the operator that they take the place of."""
    forms = {getattr(torch.ops.det_ops, name).default: _form(name) for name in OPERATORS}
    return {**forms, **aten.decompositions()}


def _form(name: str) -> Callable[..., Any]:
    operator = OPERATORS[name]
    module = f"{__name__}.{operator.module}"
    found = None if find_spec(module) is None else getattr(import_module(module), name, None)
    return found or operator.reference
