"""COCO's run-length encoding.

A mask is read column by column; the runs of zeros and ones in turn, starting with zeros, are written as a compressed
string: differences to the run two before, five bits a character. Source: `maskApi.c` of the COCO API.
"""

import numpy as np
import torch
from torch import Tensor

from det_ops import backends
from det_ops._checks import expect
from det_ops.backends import _C

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
    if host.ndim == 2:
        return encode_images(host[None])[0]
    return encode_images(host)


def encode_images(masks: Tensor) -> list[RLE]:
    """`encode_rle` of `[K, h, w]` on the CPU, unchecked."""
    if _C is not None and backends.native(masks):
        masks = masks.contiguous()
        count, height, width = masks.shape
        texts = _C.encode_rle(masks.data_ptr(), count, height, width, torch.get_num_threads())
        return [{"size": [height, width], "counts": text} for text in texts]
    return [rle_of_counts(_counts(mask.numpy()), mask.shape[0], mask.shape[1]) for mask in masks]


def _counts(mask: np.ndarray) -> list[int]:
    """Lengths of the runs of a 2-D array in column order, zeros first."""
    flat = mask.ravel(order="F") != 0
    changes = np.flatnonzero(np.diff(flat, prepend=False))
    return np.diff(changes, prepend=0, append=flat.size).tolist()


def rle_of_counts(counts: list[int], height: int, width: int) -> RLE:
    """RLE dictionary of run lengths.

    Args:
        counts: Run lengths in column order, zeros first; their sum is `height * width`.
        height: Height of the mask.
        width: Width of the mask.
    """
    characters = []
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            bits = value & 0x1F
            value >>= 5
            more = value != (-1 if bits & 0x10 else 0)
            characters.append(chr((bits | 0x20 if more else bits) + 48))
    return {"size": [height, width], "counts": "".join(characters)}


backends.register("encode_rle", "cpu", "C++", "rows compared in blocks; threads over masks")
for _device in ("cuda", "npu"):
    backends.register("encode_rle", _device, "C++", "masks are copied to the host: strings live there")
