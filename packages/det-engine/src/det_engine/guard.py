"""What keeps a broken step from changing anything, however late the host looks."""

import contextlib
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn


class Guard:
    """Decides on the device, without a host read, whether a step may change anything.

    The first step that is broken blocks all later ones until `unblock`.

    Args:
        model: its batch statistics, which a forward pass moves, are brought back after a broken step.
        explosion: a loss above this many times the first one (or above this number) is broken; 0: none is.
        device: where the losses are.

    Attributes:
        blocked: bool scalar, whether steps change nothing any more.
        limit: float32 scalar, the largest loss allowed; infinite before the first step.
        statistics: batch statistics after the last good step.
    """

    def __init__(self, model: nn.Module, explosion: float, device: torch.device) -> None:
        self.blocked = torch.zeros((), dtype=torch.bool, device=device)
        self.limit = torch.full((), torch.inf, device=device)
        self.statistics = BatchStatistics(model)
        self._explosion = explosion

    def judge(self, loss: Tensor) -> Tensor:
        """Whether a step of this loss (scalar) must change nothing, bool scalar; the first loss sets the limit."""
        blocked = self.blocked | ~torch.isfinite(loss) | (loss > self.limit)
        if self._explosion:
            first = self._explosion * loss.clamp(min=1)
            self.limit.copy_(torch.where(torch.isinf(self.limit) & ~blocked, first, self.limit))
        return blocked

    def settle(self, blocked: Tensor) -> None:
        """End a step: remember whether it was blocked (bool scalar), and its statistics if it was not."""
        self.blocked.copy_(blocked)
        self.statistics.keep(blocked)

    def unblock(self) -> None:
        """Go on after a blocked step, as if it and the later ones had not been."""
        self.blocked.fill_(False)
        self.statistics.restore()

    @contextlib.contextmanager
    def closed(self) -> Iterator[None]:
        """A block whose steps are blocked, and that leaves no trace here."""
        blocked, limit = self.blocked.clone(), self.limit.clone()
        self.blocked.fill_(True)
        try:
            yield
        finally:
            self.blocked.copy_(blocked)
            self.limit.copy_(limit)
            self.statistics.restore()


class BatchStatistics:
    """The running statistics of batch normalisation after the last good step, those of one type in one tensor."""

    def __init__(self, model: nn.Module) -> None:
        live: dict[torch.dtype, list[Tensor]] = {}
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
                for tensor in (module.running_mean, module.running_var, module.num_batches_tracked):
                    live.setdefault(cast(Tensor, tensor).dtype, []).append(cast(Tensor, tensor))
        self._groups = [(_joined(tensors), tensors) for tensors in live.values()]

    def keep(self, blocked: Tensor) -> None:
        """Take the present ones, unless the step was blocked (bool scalar)."""
        for good, live in self._groups:
            good.copy_(torch.where(blocked, good, _joined(live)))

    def take(self) -> None:
        """Take the present ones for good, such as after they were loaded."""
        for good, live in self._groups:
            good.copy_(_joined(live))

    def restore(self) -> None:
        """Bring the model back to them."""
        for good, live in self._groups:
            pieces = good.split([tensor.numel() for tensor in live])
            torch._foreach_copy_(live, [piece.view_as(tensor) for piece, tensor in zip(pieces, live, strict=True)])


def _joined(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])
