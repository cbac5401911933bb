"""Masks of shifted windows of attention (Liu et al., Swin Transformer, 2021), made once for each size of image."""

from typing import Any

import torch
from torch import Tensor, nn


class MaskPerSize:
    """Takes the place of `get_attn_mask` in a block of timm, which writes the mask anew at every call.

    That takes dozens of small operators, and copies numbers from the host to the device, which no captured step may.

    Args:
        block: A block with a `dynamic_mask`.
        masks: What was made so far, shared by all blocks of a network.
    """

    def __init__(self, block: nn.Module, masks: dict[tuple[Any, ...], Tensor | None]) -> None:
        self.block: Any = block
        self.masks = masks

    def __call__(self, x: Tensor) -> Tensor | None:
        """The mask of the windows of an image.

        Args:
            x: `Tensor[N, H, W, C]`, of which shape, dtype and device count.

        Returns:
            `Tensor[windows, area, area]`, 0 within a part of the image and -100 between parts; None without a shift.
        """
        block = self.block
        if torch.compiler.is_compiling() or type(x) is not Tensor:  # tensors of a tracer do not outlive it
            return type(block).get_attn_mask(block, x)
        key = (*x.shape[1:3], *block.window_size, *block.shift_size, x.dtype, x.device)
        if key not in self.masks:
            with torch.inference_mode(False):  # training uses it too
                self.masks[key] = type(block).get_attn_mask(block, x)
        return self.masks[key]


def keep_masks(network: nn.Module) -> None:
    """Lets blocks that make masks at every call keep them."""
    masks: dict[tuple[Any, ...], Tensor | None] = {}
    for block in network.modules():
        if getattr(block, "dynamic_mask", False):
            block.get_attn_mask = MaskPerSize(block, masks)  # type: ignore[assignment]
