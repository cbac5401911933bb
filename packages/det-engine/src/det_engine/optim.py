"""The optimizer of a model: parameter groups by the recipe's rules."""

import re

import torch
from torch import nn

from det_engine.errors import EngineError
from det_engine.solver import SolverConfig, lr_at


def build_optimizer(model: nn.Module, config: SolverConfig) -> torch.optim.SGD:
    """SGD over the trainable parameters of `model`, grouped by learning rate and weight decay.

    Parameters with `requires_grad=False` are left out; one that several modules share counts once, with the module
    that comes first. The rules, later ones winning:

    1. every parameter: factor 1, `weight_decay`;
    2. parameters of normalisation layers: `norm_weight_decay`;
    3. parameters named `bias`: factor `bias_lr_factor`, `bias_weight_decay`.

    Each group carries `lr_factor` and `names`, the parameters' names in order.

    Raises:
        EngineError: no parameter is trainable.
    """
    groups: dict[tuple[float, float], dict[str, list]] = {}
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            rule = _rule(module, name, config)
            group = groups.setdefault(rule, {"params": [], "names": []})
            group["params"].append(parameter)
            group["names"].append(f"{prefix}.{name}" if prefix else name)
    if not groups:
        raise EngineError("The model has no trainable parameter: all have requires_grad=False.")
    optimizer = torch.optim.SGD(
        [{**group, "weight_decay": decay, "lr_factor": factor} for (factor, decay), group in groups.items()],
        lr=lr_at(config, 0),
        momentum=config.momentum,
        # One kernel for all parameters on every device; it also takes the loss scaler's verdict without a host read.
        fused=True,
    )
    if config.momentum:
        for parameter in trainable_parameters(optimizer):
            # The fused step leaves memory as it found it where the very first half-precision gradient overflows,
            # and adds it to all later steps; from zero, the first step is the same as without a buffer.
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def _rule(module: nn.Module, name: str, config: SolverConfig) -> tuple[float, float]:
    """Learning-rate factor and weight decay of parameter `name` of `module`."""
    factor, decay = 1.0, config.weight_decay
    if _is_norm(module) and config.norm_weight_decay is not None:
        decay = config.norm_weight_decay
    if name == "bias":
        factor = config.bias_lr_factor
        if config.bias_weight_decay is not None:
            decay = config.bias_weight_decay
    return factor, decay


def _is_norm(module: nn.Module) -> bool:
    # By name, so that layers of other packages (frozen statistics, synchronised, ...) count without being known here.
    return any(re.search("Norm(?!al)", kind.__name__) for kind in type(module).__mro__)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group the learning rate `lr` times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]


def trainable_parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """All parameters of the optimizer, in its order."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
