"""Batch normalisation over all processes, on CPUs too."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class _Sum(torch.autograd.Function):
    """The sum over all processes; each process's gradient is the sum of all gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup | None) -> Tensor:
        ctx.group = group
        total = x.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].contiguous()
        dist.all_reduce(total, group=ctx.group)
        return total, None


class SyncBatchNorm2d(nn.SyncBatchNorm):
    """`nn.SyncBatchNorm`, which refuses tensors on the CPU while a process group exists; this one takes them.

    On the CPU it sums in float64, so the result is that of one process with the whole batch, up to rounding.
    """

    def forward(self, x: Tensor) -> Tensor:  # pyrefly: ignore[bad-param-name-override]
        """Normalise, in training by the statistics of the batches of all processes.

        Args:
            x: [B, C, H, W], where B may differ from process to process.

        Returns:
            [B, C, H, W], the same dtype.
        """
        together = self.training and dist.is_available() and dist.is_initialized()
        if not together or x.device.type != "cpu":
            return super().forward(x)
        counts = torch.full((1,), x.numel() // x.shape[1], dtype=torch.float64)
        sums = x.sum((0, 2, 3), dtype=torch.float64)  # [C]
        squares = x.double().square().sum((0, 2, 3))
        # [1], [C], [C]
        count, sums, squares = _Sum.apply(torch.cat([counts, sums, squares]), self.process_group).split(
            [1, self.num_features, self.num_features]
        )
        mean = sums / count
        variance = (squares / count - mean.square()).clamp(min=0)
        self._track(mean.detach(), (variance * count / (count - 1).clamp(min=1)).detach())
        scale = (variance + self.eps).rsqrt().to(self.weight.dtype) * self.weight
        shift = self.bias - mean.to(self.weight.dtype) * scale
        return (x * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)).to(x.dtype)

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        momentum = self.momentum if self.momentum is not None else 1 / self.num_batches_tracked
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), momentum)
