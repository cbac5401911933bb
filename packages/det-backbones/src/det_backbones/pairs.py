"""Finds out which convolutions and batch normalisations of a foreign network belong together, by running it."""

import contextlib
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves


class ExclusivePairs(TorchFunctionMode):
    """A block in which a network runs once, and which finds convolutions whose result goes to one batch norm alone.

    Then the two can be computed as one. What is measured is each use of a result in a function of PyTorch.

    Args:
        network: What runs; its convolutions and batch normalisations are watched.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.convolutions: dict[
            int, tuple[str, Tensor]
        ] = {}  # by the result, which lives on so that its id stays its own
        self.norms: dict[int, list[str]] = {}
        self.uses: dict[int, int] = {}
        self.calls: dict[str, int] = {}
        self.hooks = contextlib.ExitStack()

    def __enter__(self) -> "ExclusivePairs":
        for name, module in self.network.named_modules():
            # Subclasses may do other things to their weights; that of timm only pads.
            if type(module) is nn.Conv2d or type(module).__name__ == "Conv2dSame":
                hook = module.register_forward_hook(self._convolved(name))
            elif isinstance(module, _BatchNorm):
                hook = module.register_forward_pre_hook(self._normalized(name))
            else:
                continue
            self.hooks.callback(hook.remove)
        super().__enter__()
        return self

    def __exit__(self, exc_type: Any, exc_val: Any, exc_tb: Any) -> None:
        super().__exit__(exc_type, exc_val, exc_tb)
        self.hooks.close()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") not in ("__get__", "dim", "size"):
            for tensor in tree_leaves((args, kwargs)):
                if id(tensor) in self.convolutions:
                    self.uses[id(tensor)] = self.uses.get(id(tensor), 0) + 1
        return func(*args, **(kwargs or {}))

    def _convolved(self, name: str) -> Any:
        def hook(_: nn.Module, inputs: Any, result: Tensor) -> None:  # noqa: ARG001
            self.convolutions[id(result)] = (name, result)
            self.calls[name] = self.calls.get(name, 0) + 1

        return hook

    def _normalized(self, name: str) -> Any:
        def hook(_: nn.Module, inputs: Any) -> None:
            if id(inputs[0]) in self.convolutions:
                self.norms.setdefault(id(inputs[0]), []).append(name)
            self.calls[name] = self.calls.get(name, 0) + 1

        return hook

    def found(self) -> tuple[tuple[str, str], ...]:
        """Names of each convolution and its norm."""
        pairs = []
        for key, (convolution, _) in self.convolutions.items():
            norms = self.norms.get(key, [])
            if len(norms) == 1 and self.uses.get(key) == 1 and self.calls[convolution] == self.calls[norms[0]] == 1:
                pairs.append((convolution, norms[0]))
        return tuple(pairs)
