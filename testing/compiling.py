"""Functions as compilers and exporters see them."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn


class _Module(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self._function = function

    def forward(self, *arguments: Any) -> Any:
        return self._function(*arguments)


def assert_compiles_and_exports(function: Callable[..., Any], arguments: Sequence[Any], expected: Any) -> None:
    """Compiled without a graph break, and exported, a function gives the expected tensors to the last bit."""
    torch._dynamo.reset()
    module = _Module(function)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")(*arguments)
    exported = torch.export.export(module, tuple(arguments)).module()(*arguments)
    for found in (compiled, exported):
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
