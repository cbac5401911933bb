"""Sampling of examples on the CPU."""

import torch
from torch import Tensor

from det_ops.backends.cpu import compute_type, function


def sample(labels: Tensor, keys: Tensor, num: int, max_positive: int) -> tuple[Tensor, Tensor, Tensor]:
    """Index int64 and two flags, `[B, K]`; keys in float32, or float64."""
    dtype = compute_type(keys)
    labels, keys = labels.contiguous(), keys.to(dtype).contiguous()
    b, n = labels.shape
    slots = min(num, n)
    index = torch.empty((b, slots), dtype=torch.int64)
    positive = torch.empty((b, slots), dtype=torch.bool)
    valid = torch.empty((b, slots), dtype=torch.bool)
    function("sample", dtype)(
        labels.data_ptr(),
        keys.data_ptr(),
        b,
        n,
        slots,
        max_positive,
        torch.get_num_threads(),
        index.data_ptr(),
        positive.data_ptr(),
        valid.data_ptr(),
    )
    return index, positive, valid
