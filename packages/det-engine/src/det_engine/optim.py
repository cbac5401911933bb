"""The optimizer of a model: parameter groups by the recipe's rules."""

import fnmatch
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from det_engine.errors import EngineError
from det_engine.model import as_trainable, plain_name
from det_engine.sgd import StaticSGD
from det_engine.solver import SolverConfig, lr_at


def build_optimizer(
    model: nn.Module,
    config: SolverConfig,
    *,
    masters: Mapping[nn.Parameter, nn.Parameter] | None = None,
    lr_on: torch.device | None = None,
) -> torch.optim.Optimizer:
    """SGD or AdamW over the trainable parameters of `model`, grouped by learning rate and weight decay.

    Parameters with `requires_grad=False` are left out; one that several modules share counts once, with the module
    that comes first. The rules, later ones winning:

    1. every parameter: factor 1, `weight_decay`;
    2. parameters of normalisation layers: `norm_weight_decay`;
    3. parameters named `bias`: factor `bias_lr_factor`, `bias_weight_decay`;
    4. parameters whose names a pattern of `no_decay` fits: no weight decay.

    For names that begin with one of the strings in entry i of the n `layer_groups` of a `TrainableModel`, the factor is
    multiplied by `layer_decay ** (n - i)`, and by that of the last pattern of `rates` that fits. Each group carries
    `lr_factor` and `names`, the parameters' names in order.

    Args:
        model: owner of the parameters.
        config: the rules.
        masters: what is optimized in place of a parameter, see `Masters`.
        lr_on: device on which the learning rate lives as a tensor, for a captured step; None: a number.

    Raises:
        EngineError: no parameter is trainable, the model does not name its layers, a pattern fits none of its names, or
            the learning rate of AdamW should live on an NPU.
    """
    if config.optimizer == "adamw" and lr_on is not None and lr_on.type == "npu":
        raise EngineError(
            "AdamW cannot be captured on an NPU: torch_npu's fused AdamW takes the learning rate from the host; train "
            "without capture, or take SGD."
        )
    layers = _layers(model, config)
    _check_patterns("solver.rates", config.rates, model)
    _check_patterns("solver.no_decay", config.no_decay, model)
    groups: dict[tuple[float, float], dict[str, list]] = {}
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            full_name = plain_name(f"{prefix}.{name}" if prefix else name)
            factor, decay = _rule(module, name, config)
            factor *= _layer_factor(full_name, layers, config.layer_decay) * _rate(full_name, config.rates)
            rule = (factor, 0.0 if _fits(full_name, config.no_decay) else decay)
            group = groups.setdefault(rule, {"params": [], "names": []})
            group["params"].append(parameter if masters is None else masters.get(parameter, parameter))
            group["names"].append(full_name)
    if not groups:
        raise EngineError("The model has no trainable parameter: all have requires_grad=False.")
    described: list[dict[str, Any]] = [
        {**group, "weight_decay": decay, "lr_factor": factor} for (factor, decay), group in groups.items()
    ]
    lr = lr_at(config, 0)
    if lr_on is not None:
        for group in described:
            group["lr"] = torch.tensor(lr * group["lr_factor"], device=lr_on)
    # Fused: one kernel for all parameters, which also takes loss scale and verdict without a host read.
    if config.optimizer == "adamw":
        capturable = lr_on is not None and lr_on.type != "cpu"
        return torch.optim.AdamW(described, lr=lr, betas=config.betas, fused=True, capturable=capturable)
    if described[0]["params"][0].device.type == "npu":
        return StaticSGD(described, lr=lr, momentum=config.momentum)
    optimizer = torch.optim.SGD(described, lr=lr, momentum=config.momentum, fused=True)
    if config.momentum:
        for parameter in trainable_parameters(optimizer):
            # The fused step leaves memory as it found it where the very first half-precision gradient overflows,
            # and adds it to all later steps; from zero, the first step is the same as without a buffer.
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Leave parameters out of the training.

    Args:
        model: its parameters; a batch norm all of whose parameters are frozen stays in evaluation mode for good, so
            that its statistics stay too.
        patterns: of their names, in which `*` stands for anything, such as `backbone.*`.

    Raises:
        EngineError: a pattern fits no name.
    """
    _check_patterns("settings.freeze", patterns, model)
    for name, parameter in model.named_parameters():
        if _fits(plain_name(name), patterns):
            parameter.requires_grad_(False)
    for name, module in model.named_modules():
        own = [plain_name(f"{name}.{part}" if name else part) for part, _ in module.named_parameters(recurse=False)]
        if isinstance(module, _BatchNorm) and own and all(_fits(part, patterns) for part in own):
            module.eval()
            module.train = types.MethodType(_stay, module)  # type: ignore[method-assign]


def _stay(module: nn.Module, mode: bool = True) -> nn.Module:  # noqa: ARG001
    return module


def _fits(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _check_patterns(field: str, patterns: Iterable[str], model: nn.Module) -> None:
    names = [plain_name(name) for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            first = dict.fromkeys(name.partition(".")[0] for name in names)
            raise EngineError(
                f"{field} has the pattern {pattern!r}, which fits no parameter; their names begin with "
                f"{', '.join(first)}."
            )


def _rate(name: str, rates: Mapping[str, float]) -> float:
    fitting = [rate for pattern, rate in rates.items() if fnmatch.fnmatchcase(name, pattern)]
    return fitting[-1] if fitting else 1.0


def _layers(model: nn.Module, config: SolverConfig) -> Sequence[tuple[str, ...]]:
    if config.layer_decay == 1:
        return ()
    trainable = as_trainable(model)
    if trainable is None:
        raise EngineError(
            "solver.layer_decay needs a model that names its layers: one with the methods of det_engine.TrainableModel."
        )
    return trainable.layer_groups()


def _layer_factor(name: str, layers: Sequence[tuple[str, ...]], decay: float) -> float:
    for number, prefix in enumerate(layers):
        if name.startswith(prefix):
            return decay ** (len(layers) - number)
    return 1.0


def _rule(module: nn.Module, name: str, config: SolverConfig) -> tuple[float, float]:
    """Learning-rate factor and weight decay of parameter `name` of `module`."""
    factor, decay = 1.0, config.weight_decay
    if is_norm(module) and config.norm_weight_decay is not None:
        decay = config.norm_weight_decay
    if name == "bias":
        factor = config.bias_lr_factor
        if config.bias_weight_decay is not None:
            decay = config.bias_weight_decay
    return factor, decay


def is_norm(module: nn.Module) -> bool:
    """Whether `module` is a normalisation layer."""
    # By name, so that layers of other packages (frozen statistics, synchronised, ...) count without being known here.
    return any(re.search("Norm(?!al)", kind.__name__) for kind in type(module).__mro__)


_SLOTS: dict[type[torch.optim.Optimizer], tuple[str, set[str]]] = {
    torch.optim.SGD: ("sgd", {"momentum_buffer"}),
    torch.optim.AdamW: ("adamw", {"step", "exp_avg", "exp_avg_sq"}),
}
"""What an optimizer is called in `SolverConfig`, and what it keeps of each parameter."""


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any], source: Path | str) -> None:
    """Give an optimizer of `build_optimizer` the per-parameter state of another one; its own hyper-parameters stay.

    Args:
        optimizer: what takes the state.
        state: of the other one, from its `state_dict`.
        source: the file that it came from, for the message.

    Raises:
        EngineError: the state is of another optimizer, of other parameters, or of another grouping of them.
    """
    own, theirs = optimizer.state_dict()["param_groups"], state["param_groups"]
    if [group["names"] for group in own] != [group["names"] for group in theirs]:
        raise EngineError(f"The optimizer state in {source} does not fit: {_other_groups(own, theirs)}")
    name, slots = next(value for kind, value in _SLOTS.items() if isinstance(optimizer, kind))
    kept = {slot for entry in state["state"].values() for slot, value in entry.items() if value is not None}
    if not kept <= slots:
        other = next((other for other, theirs in _SLOTS.values() if kept <= theirs), "another one")
        raise EngineError(
            f"The optimizer state in {source} is of {other}, and this training's solver.optimizer is {name}. Go on "
            "with that of the run, or start a new run from its weights."
        )
    parameters = trainable_parameters(optimizer)
    for index, entry in state["state"].items():
        for slot, value in entry.items():
            if isinstance(value, torch.Tensor) and value.ndim and value.shape != parameters[index].shape:
                raise EngineError(
                    f"The optimizer state in {source} does not fit: {slot} of parameter {index} is "
                    f"{tuple(value.shape)}, the parameter {tuple(parameters[index].shape)}."
                )
    optimizer.load_state_dict({"state": state["state"], "param_groups": own})


def _other_groups(own: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> str:
    """How two groupings differ, and what to do."""
    now, then = ({name for group in groups for name in group["names"]} for groups in (own, theirs))
    if now == then:
        return (
            f"it has {len(theirs)} groups of parameters, and the model {len(own)}. Resume with the rules of the run "
            "for rates and decays (solver.norm_weight_decay, solver.bias_lr_factor, solver.bias_weight_decay, "
            "solver.layer_decay, solver.rates), or start a new run from its weights."
        )
    lines = [
        f"{len(names)} parameters are {what}, such as {min(names)}"
        for names, what in ((now - then, "trained now that were frozen"), (then - now, "frozen now that were trained"))
        if names
    ]
    return f"{', and '.join(lines)}. Resume with the frozen layers of the run, or start a new run from its weights."


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group the learning rate `lr` times its factor."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(lr * group["lr_factor"])
        else:
            group["lr"] = lr * group["lr_factor"]


def trainable_parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """All parameters of the optimizer, in its order."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
