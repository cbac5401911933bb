"""Operators of PyTorch's that ExecuTorch's runtime lacks, of others that it has."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_NAN, _INFINITE, _TINY, _STEP = 2.0**129, 2.0**128, 2.0**-150, 2.0**-50
"""Beyond every float32 on either side, and less than half of the relative distance of two of them by 2^24 places."""


def sort_stable(
    values: Tensor,
    stable: bool = True,  # noqa: ARG001 - it always is
    dim: int = -1,
    descending: bool = False,
) -> tuple[Tensor, Tensor]:
    """Sort values `[*, N, *]` as `aten::sort.stable` does, by the runtime's `topk`.

    That one takes equal values in any order, so there are none: places are added to the values in float64, in which
    they do not reach the next float32. Exact for up to 2^24 values in float32 or less, and for integers below 2^24.

    Returns:
        Values and int64 indices `[*, N, *]`; among equal ones the lower index goes first, and NaN is the greatest.
    """
    dim %= max(values.ndim, 1)
    count = values.shape[dim]
    place = torch.arange(count, device=values.device).double() * _STEP
    place = place.reshape(-1, *[1] * (values.ndim - 1 - dim))
    key = values.double()
    if values.dtype.is_floating_point:
        key = torch.where(key.isnan(), _NAN, key.clamp(-_INFINITE, _INFINITE))
    behind = key.abs().clamp(min=_TINY) * place
    key = key - behind if descending else key + behind
    order = key.topk(count, dim, largest=descending).indices
    return values.gather(dim, order), order


def decompositions() -> dict[Any, Callable[..., Any]]:
    """What stands for each of them."""
    aten = torch.ops.aten
    return {
        aten.sort.default: lambda values, dim=-1, descending=False: sort_stable(values, True, dim, descending),
        aten.sort.stable: sort_stable,
        aten.argsort.default: lambda values, dim=-1, descending=False: sort_stable(values, True, dim, descending)[1],
        aten.argsort.stable: lambda values, stable, dim=-1, descending=False: sort_stable(  # noqa: ARG005
            values, True, dim, descending
        )[1],
        aten.empty_like.default: _zeros_like,
        aten.empty_strided.default: lambda size, _, **options: torch.zeros(size, **options),
    }


def _zeros_like(values: Tensor, *, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
    """Contiguous, as all tensors there: its kernels add no two layouts."""
    return torch.zeros(values.shape, dtype=dtype or values.dtype, device=values.device)
