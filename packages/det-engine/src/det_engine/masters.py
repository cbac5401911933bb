"""Half-precision weights with float32 masters (`O2`)."""

import torch
from torch import Tensor, nn

from det_engine.model import plain_name
from det_engine.optim import is_norm


class Masters:
    """The weights of a model in `dtype`, those of normalisation layers excepted, and their float32 masters.

    The optimizer changes the masters; the model computes with copies of them.

    Args:
        model: its weights are turned into `dtype` in place.
        dtype: a half-precision type.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        self._names: dict[str, nn.Parameter] = {}
        self.of: dict[nn.Parameter, nn.Parameter] = {}
        for prefix, module in model.named_modules():
            if is_norm(module):
                continue
            for name, parameter in module.named_parameters(recurse=False):
                if parameter.dtype == torch.float32:
                    if parameter not in self.of:
                        master = nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad)
                        self.of[parameter] = master
                        parameter.data = parameter.data.to(dtype)
                    self._names[plain_name(f"{prefix}.{name}" if prefix else name)] = self.of[parameter]
        trained = [(half, master) for half, master in self.of.items() if half.requires_grad]
        self._half, self._masters = [pair[0] for pair in trained], [pair[1] for pair in trained]
        for master in self._masters:
            master.grad = torch.zeros_like(master)

    @torch.no_grad()
    def take_gradients(self) -> None:
        """Give the masters the gradients of their weights."""
        for master, half in zip(self._masters, self._half, strict=True):
            if master.grad is not None and half.grad is not None:
                master.grad.copy_(half.grad)

    @torch.no_grad()
    def publish(self) -> None:
        """Give the weights the values of their masters."""
        torch._foreach_copy_(list(self.of), list(self.of.values()))

    def substitute(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """A state dict of the model with the masters in place of the rounded weights."""
        return {name: self._names[name].data if name in self._names else value for name, value in tensors.items()}

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take the masters from a state dict of the model, and publish them."""
        for name, master in self._names.items():
            master.copy_(tensors[name])
        self.publish()
