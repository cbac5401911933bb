"""Moving the used slots of all images to the front, without knowing how many there are."""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Packing", "pack", "unpack"]


class Packing(NamedTuple):
    """Order that puts used slots first.

    Attributes:
        order: [B * K] int64, slot of each row; used slots first, otherwise in their order.
        used: [B * K] bool, which rows are used: a prefix.
        count: int64 scalar tensor, how many.
        images: [B * K] int64, image of each row.
    """

    order: Tensor
    used: Tensor
    count: Tensor
    images: Tensor


def pack(used: Tensor) -> Packing:
    """Packs slots [B, K] bool."""
    flat = used.flatten()
    order = torch.argsort((~flat).to(torch.int8), stable=True)
    return Packing(order, flat[order], flat.sum(), order // used.shape[1])


def unpack(rows: Tensor, packing: Packing, slots: tuple[int, int]) -> Tensor:
    """Puts packed rows [B * K, ...] back into their slots: [B, K, ...]."""
    return rows[torch.argsort(packing.order)].reshape(*slots, *rows.shape[1:])
