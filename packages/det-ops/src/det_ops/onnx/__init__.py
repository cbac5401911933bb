"""Operators in ONNX: what `torch.onnx.export` needs to know of them; for the extra `onnx`.

An operator's form in ONNX is that of its reference, which is plain PyTorch, unless a module here has a function of the
operator's name that translates it. Both are of ONNX's standard domain, opset 18, of static shapes but for the batch,
without NonZero, Loop, If, NonMaxSuppression.
"""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from det_ops._operator import OPERATORS

__all__ = ["decompositions", "translations"]


def translations() -> dict[Any, Callable[..., Any]]:
    """Functions that translate operators: what `torch.onnx.export` takes as `custom_translation_table`.

    Raises:
        ImportError: `onnxscript` is not installed.
    """
    table = {_entry(name): translation for name in OPERATORS if (translation := _translation(name)) is not None}
    plain = import_module(f"{__name__}.aten")
    return {
        **table,
        torch.ops.aten.sort.stable: plain.sort_stable,
        torch.ops.aten.isfinite.default: plain.isfinite,
        torch.ops.aten.nan_to_num.default: plain.nan_to_num,
    }


def decompositions() -> dict[Any, Callable[..., Any]]:
    """References of the other operators: what `ExportedProgram.run_decompositions` takes."""
    return {_entry(name): found.reference for name, found in OPERATORS.items() if _translation(name) is None}


def _translation(name: str) -> Callable[..., Any] | None:
    module = f"{__name__}.{OPERATORS[name].module}"
    return None if find_spec(module) is None else getattr(import_module(module), name, None)


def _entry(name: str) -> Any:
    return getattr(torch.ops.det_ops, name).default
