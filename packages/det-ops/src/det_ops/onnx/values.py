"""Values in a graph of ONNX, of whose shapes one side, the batch, may be open."""

from typing import Any

import numpy as np
import onnx_ir
from onnxscript.onnx_opset import opset18

op: Any = opset18
"""Operators; their hints know tensors alone, not the numbers and lists that stand for constants."""

FLOAT, INT64 = 1, 7
"""What ONNX calls float32 and int64 in `Cast`."""


def constant(array: np.ndarray) -> Any:
    """A constant of the shape `[...]` and dtype of an array."""
    return op.Constant(value=onnx_ir.tensor(array))


def flattened(values: Any, kept: int) -> Any:
    """Make the leading dimensions one, before the last `kept`."""
    if len(values.shape) == kept + 1:
        return values
    return op.Reshape(values, [-1, *values.shape[len(values.shape) - kept :]])


def unflattened(values: Any, shape: list[Any]) -> Any:
    """Give values `[L, K]` the leading dimensions again that :func:`flattened` took, of which one may be open."""
    if len(shape) == 2:
        return values
    return op.Reshape(values, [side if isinstance(side, int) else -1 for side in shape])


def zero(like: Any) -> Any:
    """The number zero in the dtype of a value."""
    return constant(np.zeros((), like.dtype.numpy()))


def in_float32(values: Any) -> Any:
    """Values `[*]` in float32, which they are cast to where they are in half precision."""
    return values if values.dtype == FLOAT else op.Cast(values, to=FLOAT)


def in_dtype_of(values: Any, like: Any) -> Any:
    """Values `[*]` in float32, cast to the dtype of another value."""
    return values if like.dtype == FLOAT else op.Cast(values, to=like.dtype)
