"""Argument checks with one message format: what was expected, what came."""

import torch
from torch import Tensor


def describe(value: object) -> str:
    """Short text for a value in a message: `float32[2, 3] on cpu` for tensors, else the type and value."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)} on {value.device.type}"
    return f"{type(value).__name__} {value!r}"


def expect(condition: bool, name: str, expected: str, got: object) -> None:
    """Raise unless `condition` holds.

    Raises:
        ValueError: "`name` must be `expected`, got ...".
    """
    if not condition:
        raise ValueError(f"{name} must be {expected}, got {describe(got)}")


def check_boxes(boxes: Tensor, name: str, ndim: int | None = None, shape: str = "...") -> None:
    """Raise ValueError unless `boxes` is a floating tensor whose last dimension is 4 (and has `ndim` dimensions)."""
    if (
        not isinstance(boxes, Tensor)
        or boxes.shape[-1:] != (4,)
        or not boxes.is_floating_point()
        or (ndim is not None and boxes.ndim != ndim)
    ):
        raise ValueError(f"{name} must be a floating Tensor[{shape}, 4] of x1, y1, x2, y2, got {describe(boxes)}")


def check_shape(tensor: Tensor, name: str, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless `tensor` has exactly `shape`."""
    if not isinstance(tensor, Tensor) or tensor.shape != shape:
        raise ValueError(f"{name} must have shape {list(shape)}, got {describe(tensor)}")


def check_dtype(tensor: Tensor, name: str, *dtypes: torch.dtype) -> None:
    """Raise ValueError unless the dtype of `tensor` is among `dtypes`."""
    if tensor.dtype not in dtypes:
        wanted = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise ValueError(f"{name} must be of dtype {wanted}, got {describe(tensor)}")


def check_device(tensor: Tensor, name: str, other: Tensor, other_name: str) -> None:
    """Raise ValueError unless both tensors are on one device."""
    if tensor.device != other.device:
        raise ValueError(f"{name} must be on the device of {other_name} ({other.device}), got {describe(tensor)}")
