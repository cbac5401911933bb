"""Stages whose maps are computed a second time in the backward pass instead of being kept from the first.

Source: Chen et al., Training Deep Nets with Sublinear Memory Cost (2016); mmdetection calls it `with_cp`.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from det_backbones.norm import same_maps


def recomputed(stage: nn.Module, x: Tensor) -> Tensor:
    """Compute `stage(x)`, and keep only `x` for the backward pass.

    Values, gradients and running statistics are those of `stage(x)`, bit for bit. Compiled programs decide for
    themselves what they keep.

    Args:
        stage: A network without random numbers.
        x: [B, C, H, W].

    Returns:
        What `stage` returns.
    """
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return stage(x)
    again = _Again(stage)
    return checkpoint(
        stage, x, use_reentrant=False, preserve_rng_state=False, context_fn=lambda: (nullcontext(), again)
    )


class _Again(ExitStack):
    """The second pass: frozen norms have the maps of the first, and running statistics have counted it already."""

    def __init__(self, stage: nn.Module) -> None:
        super().__init__()
        self.maps = same_maps()
        self.norms = [module for module in stage.modules() if isinstance(module, _BatchNorm)]

    def __enter__(self) -> "_Again":
        self.enter_context(self.maps())
        for norm in self.norms:
            self.enter_context(_constant_statistics(norm))
        return super().__enter__()


@contextmanager
def _constant_statistics(norm: _BatchNorm) -> Iterator[None]:
    momentum, count = norm.momentum, norm.num_batches_tracked
    norm.momentum, norm.num_batches_tracked = 0.0, None if count is None else count.clone()
    try:
        yield
    finally:
        norm.momentum, norm.num_batches_tracked = momentum, count
