"""What autocast asks of operators that PyTorch does not know."""

from typing import Any

import torch
from torch import Tensor


def in_autocast(input: Tensor, *others: Tensor | None) -> tuple[Any, ...]:  # noqa: A002 - torch's name
    """The tensors in autocast's dtype where it is on, unless they are float64."""
    kind = input.device.type
    if not torch.is_autocast_enabled(kind) or input.dtype == torch.float64:
        return input, *others
    dtype = torch.get_autocast_dtype(kind)
    return input.to(dtype), *(None if tensor is None else tensor.to(dtype) for tensor in others)
