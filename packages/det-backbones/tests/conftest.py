import pytest
import torch
from torch import nn


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def randomize():
    """Gives the normalisation layers of a module statistics and affines worth folding."""

    def apply(module: nn.Module) -> nn.Module:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
                if name.endswith("running_mean") or (tensor.dim() == 1 and name.endswith("bias")):
                    tensor.normal_(0, 0.1, generator=generator)
                elif name.endswith("running_var") or (tensor.dim() == 1 and name.endswith("weight")):
                    tensor.uniform_(0.5, 1.5, generator=generator)
        return module

    return apply
