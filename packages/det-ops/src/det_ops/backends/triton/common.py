"""What the Triton kernels share: IoU with PyTorch's roundings, and the launch."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

EXACT = {"enable_fp_fusion": False}
"""Option of every kernel: no multiply-add is contracted, so roundings are those of PyTorch's operators.

Where a contraction is welcome, the kernel says `tl.fma`.
"""


def launch(kernel: Any, grid: tuple[int, ...], *arguments: object, **options: object) -> None:
    """Launch `kernel` on the GPU of its first tensor (the current one is where Triton launches)."""
    first = arguments[0][0] if isinstance(arguments[0], tuple) else arguments[0]
    if isinstance(first, Tensor) and first.is_cuda:
        with torch.cuda.device(first.device):
            kernel[grid](*arguments, **options, **EXACT)
    else:  # the interpreter
        kernel[grid](*arguments, **options, **EXACT)


@triton.jit
def overlap(ax1, ay1, ax2, ay2, bx1, by1, bx2, by2, offset):
    """Areas of intersection and union of boxes, broadcast against each other (as `boxes.intersection_and_union`)."""
    width = tl.maximum(tl.minimum(ax2, bx2) - tl.maximum(ax1, bx1) + offset, 0.0)
    height = tl.maximum(tl.minimum(ay2, by2) - tl.maximum(ay1, by1) + offset, 0.0)
    intersection = width * height
    area = (ax2 - ax1 + offset) * (ay2 - ay1 + offset) + (bx2 - bx1 + offset) * (by2 - by1 + offset)
    return intersection, area - intersection
