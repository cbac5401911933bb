"""Gradients as means over all processes: exchanged while others are still computed, or in one message at the end."""

import functools
import warnings

import torch
from torch import Tensor, nn

from det_engine import distributed


def data_parallel(network: nn.Module, device: torch.device) -> nn.Module:
    """Wrap a network so that its backward pass exchanges the gradients as they come, if torch can do that.

    Args:
        network: on `device`.
        device: of this process.

    Returns:
        A `DistributedDataParallel`; the network itself where there is one process, or where torch refuses: batch norm
        over several processes on the CPU.
    """
    if distributed.world_size() == 1 or (is_synchronised(network) and device.type == "cpu"):
        return network
    for parameter in network.parameters():
        if parameter.requires_grad and parameter.ndim > 2 and parameter[0, 0].numel() == 1:
            parameter.register_hook(functools.partial(_with_strides_of, parameter))
    with warnings.catch_warnings():
        # The name that replaces broadcast_buffers does not exist in the oldest torch that is supported.
        warnings.simplefilter("ignore", FutureWarning)
        return nn.parallel.DistributedDataParallel(
            network,
            device_ids=None if device.type == "cpu" else [device.index],
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
        )


def is_synchronised(network: nn.Module) -> bool:
    """Whether batch norm takes its statistics over all processes."""
    return any(isinstance(module, nn.SyncBatchNorm) for module in network.modules())


def exchange(gradients: list[Tensor]) -> None:
    """Replace gradients, of any shapes, by their mean over all processes, in one message per number format."""
    if distributed.world_size() == 1:
        return
    kinds: dict[torch.dtype, list[Tensor]] = {}
    for gradient in gradients:
        kinds.setdefault(gradient.dtype, []).append(gradient)
    for same in kinds.values():
        flat = torch.cat([gradient.flatten() for gradient in same])
        distributed.all_reduce_mean(flat)
        pieces = flat.split([gradient.numel() for gradient in same])
        torch._foreach_copy_(same, [piece.view_as(g) for piece, g in zip(pieces, same, strict=True)])


def _with_strides_of(parameter: Tensor, gradient: Tensor) -> Tensor:
    """The gradient of a 1x1 kernel as the parameter lies in memory, which is what buckets of gradients are made for.

    One that a model uses as a matrix has a gradient in the same order, but with other strides where the size is 1.
    """
    same = gradient.is_contiguous() and parameter.is_contiguous()
    return gradient.as_strided(parameter.size(), parameter.stride()) if same else gradient
