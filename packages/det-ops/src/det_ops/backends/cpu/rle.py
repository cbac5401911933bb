"""COCO's run-length encoding on the CPU."""

import torch
from torch import Tensor

from det_ops.backends.cpu import function


def encode_rle(masks: Tensor) -> list[str]:
    """Compressed strings of masks `[K, h, w]`, bool or uint8."""
    masks = masks.contiguous()
    return function("encode_rle")(masks.data_ptr(), *masks.shape, torch.get_num_threads())
