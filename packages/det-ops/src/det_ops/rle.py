"""COCO's run-length encoding.

A mask is read column by column; the runs of zeros and ones in turn, starting with zeros, are written as a compressed
string: differences to the run two before, five bits a character. Source: `maskApi.c` of the COCO API.
"""

import torch
from torch import Tensor

from det_ops._checks import expect
from det_ops._operator import host_operator
from det_ops.reference import rle as reference

__all__ = ["RLE", "encode_rle"]

RLE = dict[str, list[int] | str]
"""`{"size": [height, width], "counts": compressed string}`, as in COCO's result files."""


def encode_rle(masks: Tensor) -> RLE | list[RLE]:
    """Compressed RLE of a mask or of several, as `pycocotools.mask.encode` writes it, with `counts` as `str`.

    Args:
        masks: `[h, w]`, or `[K, h, w]`; bool or uint8, non-zero is inside.

    Returns:
        A dictionary, or a list of `K`.

    Raises:
        ValueError: `masks` has the wrong shape or dtype.
    """
    expect(
        isinstance(masks, Tensor) and masks.ndim in (2, 3) and masks.dtype in (torch.bool, torch.uint8),
        "masks",
        "a bool or uint8 Tensor[h, w] or Tensor[K, h, w]",
        masks,
    )
    host = masks.detach().cpu()
    height, width = host.shape[-2:]
    rles: list[RLE] = [
        {"size": [height, width], "counts": text} for text in texts_of(host if host.ndim == 3 else host[None])
    ]
    return rles if host.ndim == 3 else rles[0]


_registered = host_operator("encode_rle", fallback="masks are copied to the host: strings live there")
texts_of = _registered(reference.encode_rle)
"""The compressed strings of masks `[K, h, w]`, bool or uint8, on the CPU."""
