"""SGD that waits for nothing: for devices whose fused kernel reads the verdict and the learning rate on the host."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class StaticSGD(torch.optim.SGD):
    """`torch.optim.SGD` with momentum and weight decay, as `fused=True` computes it, of operators on lists of tensors.

    torch_npu's fused SGD waits for the device to learn `found_inf`, and for a learning rate that is a tensor: a step
    with it cannot be captured. Here both stay on the device. State and its names are those of `torch.optim.SGD`.

    Attributes:
        grad_scale: float32 scalar that the gradients are divided by; may be missing, as `found_inf`.
        found_inf: float32 scalar; where it is not 0 nothing changes, whatever the gradients are.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Change the parameters by their gradients.

        Raises:
            ValueError: there is a `closure`.
        """
        if closure is not None:
            raise ValueError("closure must be None, this optimizer calls none")
        divisor: Tensor | None = getattr(self, "grad_scale", None)
        found_inf: Tensor | None = getattr(self, "found_inf", None)
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters:
                self._step(group, parameters, divisor, None if found_inf is None else found_inf != 0)

    def _step(
        self, group: dict[str, Any], parameters: list[Tensor], divisor: Tensor | None, skip: Tensor | None
    ) -> None:
        changes = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if divisor is not None:
            torch._foreach_mul_(changes, divisor.reciprocal())  # in place, as the fused kernels do
        if group["weight_decay"]:
            changes = list(torch._foreach_add(changes, parameters, alpha=group["weight_decay"]))
        if group["momentum"]:
            buffers = [self._buffer(parameter) for parameter in parameters]
            changes = list(torch._foreach_add(changes, torch._foreach_mul(buffers, group["momentum"])))
            if skip is not None:
                changes = [torch.where(skip, *pair) for pair in zip(buffers, changes, strict=True)]
            torch._foreach_copy_(buffers, changes)
        elif skip is not None:
            changes = [torch.where(skip, 0.0, change) for change in changes]
        lr = group["lr"]
        if skip is not None:
            lr = torch.where(skip, 0.0, lr)
        torch._foreach_sub_(parameters, torch._foreach_mul(changes, lr))

    def _buffer(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if state.get("momentum_buffer") is None:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        return state["momentum_buffer"]
