"""Operators of PyTorch's that its exporter does not translate, or into more than every runtime has."""

from typing import Any

import numpy as np

from det_ops.onnx.values import INT64, constant, op


def sort_stable(values: Any, stable: bool = True, dim: int = -1, descending: bool = False) -> tuple[Any, Any]:  # noqa: ARG001
    """Translate `aten::sort.stable` of values `[*]`, of which runtimes sort whole numbers as int64.

    `TopK` defines the order of equal elements: the lower index goes first.
    """
    axis = dim % len(values.shape)
    dtype, whole = values.dtype, not values.dtype.is_floating_point()
    if whole:
        values = op.Cast(values, to=INT64)
    length = op.Shape(values, start=axis, end=axis + 1)
    found, order = op.TopK(values, length, axis=axis, largest=descending, sorted=1)
    return op.Cast(found, to=dtype) if whole else found, order


def isfinite(values: Any) -> Any:
    """Translate `aten::isfinite` of values `[*]` without IsNaN, which compilers for NPUs lack: NaN is not less."""
    dtype = values.dtype.numpy()
    return op.LessOrEqual(op.Abs(values), constant(np.array(np.finfo(dtype).max, dtype)))


def nan_to_num(values: Any, nan: float | None = None, posinf: float | None = None, neginf: float | None = None) -> Any:
    """Translate `aten::nan_to_num` of values `[*]`, without IsNaN too."""
    dtype = values.dtype.numpy()
    limits = np.finfo(dtype)
    number, most, least = (
        constant(np.array(default if given is None else given, dtype))
        for given, default in ((nan, 0.0), (posinf, limits.max), (neginf, limits.min))
    )
    zero = constant(np.zeros((), dtype))
    infinite = op.Where(op.Greater(values, zero), most, op.Where(op.Less(values, zero), least, number))
    return op.Where(isfinite(values), values, infinite)
