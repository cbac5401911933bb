"""What operators on the first rows of a padded batch share: the rest of the batch is room that most often is not used.

The shapes stay static; the number of live rows is a tensor, and on the CPU the kernel reads it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from det_ops import backends
from det_ops._checks import check_device, expect


def check(input: Tensor, count: Tensor, **others: Tensor | None) -> None:  # noqa: A002 - torch's name
    """Raise ValueError unless `count` is an int64 scalar, and it and `others` are on the device of `input`."""
    expect(count.shape == () and count.dtype == torch.int64, "count", "an int64 Tensor[]", count)
    for name, tensor in {"count": count, **others}.items():
        if tensor is not None:
            check_device(tensor, name, input, "input")


def autocast(input: Tensor, *others: Tensor | None) -> tuple[Any, ...]:  # noqa: A002
    """The tensors in autocast's dtype where it is on."""
    kind = input.device.type
    if not torch.is_autocast_enabled(kind) or input.dtype == torch.float64:
        return input, *others
    dtype = torch.get_autocast_dtype(kind)
    return input.to(dtype), *(None if tensor is None else tensor.to(dtype) for tensor in others)


def native(input: Tensor) -> bool:  # noqa: A002
    """Whether the kernels that read `count` serve; else all rows are computed, and masked."""
    return backends.native(input)


def mask(input: Tensor, count: Tensor) -> Tensor:  # noqa: A002
    """Which rows are live: bool `[N]`."""
    return torch.arange(len(input), device=input.device) < count


def number(count: Tensor, rows: int) -> int:
    """`count` on the host, within 0..rows: for kernels on the CPU alone."""
    return min(max(int(count), 0), rows)


def allocate(shape: Sequence[int], dtype: torch.dtype, live: int) -> Tensor:
    """`[n, c, h, w]`, channels-last, whose first `live` rows are to be filled; the others are zero."""
    n, c, h, w = shape
    out = torch.empty((n, h, w, c), dtype=dtype).permute(0, 3, 1, 2)
    out[live:].zero_()
    return out


def register(name: str, kernel: str, reason: str, dense: str) -> None:
    """The rows of the table of kernels."""
    backends.register(name, "cpu", kernel, reason)
    for device in ("cuda", "npu"):
        backends.register(name, device, "torch", f"{dense} and a row mask: no host read")
