"""Kernels in C++ for CPUs, and what they share.

Each of them takes addresses: a name holds a tensor as long as its address is in use. `threads` is the number that
PyTorch is set to.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from det_ops.backends._backend import Backend

try:
    from det_ops import _C
except ImportError as error:  # pragma: no cover - an installation without the extension
    _C = None
    _missing: str | None = f"extension not importable: {error}"
else:
    _missing = None

BACKEND = Backend(
    name="C++",
    device="cpu",
    package=__name__,
    missing=_missing,
    kernels={
        "bitmap_targets": "sums of bytes by rows, then by columns; threads over regions",
        "conv3x3": "3x3 taps of stride 1 by minimal filtering, bfloat16 too; else PyTorch's",
        "convolution_rows": "the live rows alone, as conv2d; the count is read inside the operator",
        "deform_conv2d": "samples as columns, channels-last, 512 pixels at a time; PyTorch's product",
        "encode_rle": "rows compared in blocks; threads over masks",
        "fast_nms": "all classes by falling score, sorted only as far as needed; threads over images",
        "mask_logits_rows": "the live rows alone, a few at a time: upsampled features stay in the cache",
        "match": "blocks of anchors in cache, no matrix of IoUs; threads over blocks",
        "multilevel_roi_align": "vectors of channels, regions in order of place; threads own their channels",
        "nms": "kept boxes as structure of arrays, stops at max_output; threads over images",
        "paste_masks": "the pixels of each box alone; threads over masks",
        "paste_to_rle": "run lengths without the image; threads over masks",
        "rasterize_polygons": "a bit per row, a toggle per crossing; threads over regions",
        "sample": "one pass over the keys; threads over images",
        "top_k": "PyTorch's, of keys of which no two are equal; float64: reference",
    },
)

TYPES = (torch.float32, torch.float64)
"""What the kernels compute in."""


@cache
def function(name: str, dtype: torch.dtype | None = None) -> Callable[..., Any]:
    """The function `name` of the extension, for numbers of `dtype`."""
    return getattr(_C, name if dtype is None else f"{name}_{str(dtype).removeprefix('torch.')}")


def compute_type(*tensors: Tensor) -> torch.dtype:
    """What kernels that convert compute in: float64 where an argument has it, else float32 (half precision too)."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


def address(tensor: Tensor | None) -> int:
    """Where a tensor begins; 0 for None."""
    return 0 if tensor is None else tensor.data_ptr()
