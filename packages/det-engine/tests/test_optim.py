import types

import pytest
import torch
from torch import nn

from det_engine import EngineError, SolverConfig, build_optimizer
from det_engine.optim import set_lr


class FrozenStatisticsNorm(nn.Module):
    """A normalisation layer that this package has never seen."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.bias = nn.Parameter(torch.zeros(4))


class Normalize(nn.Module):
    """Not a normalisation layer with affine parameters by the usual naming."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))


def make_model():
    model = nn.Sequential()
    model.add_module("conv", nn.Conv2d(3, 4, 3))
    model.add_module("bn", nn.BatchNorm2d(4))
    model.add_module("gn", nn.GroupNorm(2, 4))
    model.add_module("own", FrozenStatisticsNorm())
    model.add_module("pixels", Normalize())
    model.add_module("frozen", nn.Linear(4, 4))
    model.frozen.requires_grad_(False)
    model.add_module("shared", nn.Linear(4, 4))
    model.add_module("shared_again", model.shared)
    return model


def rules(optimizer):
    return {name: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for name in group["names"]}


def test_groups_of_detectron2():
    found = rules(build_optimizer(make_model(), SolverConfig(base_lr=1.0, warmup_factor=1.0)))
    assert {lr for lr, _ in found.values()} == {1.0}
    assert {name: decay for name, (_, decay) in found.items()} == {
        "conv.weight": 1e-4,
        "conv.bias": 1e-4,
        "bn.weight": 0.0,
        "bn.bias": 0.0,
        "gn.weight": 0.0,
        "gn.bias": 0.0,
        "own.weight": 0.0,
        "own.bias": 0.0,
        "pixels.weight": 1e-4,
        "shared.weight": 1e-4,
        "shared.bias": 1e-4,
    }


def test_groups_of_maskrcnn_benchmark():
    config = SolverConfig(norm_weight_decay=None, bias_lr_factor=2.0, bias_weight_decay=0.0)
    optimizer = build_optimizer(make_model(), config)
    set_lr(optimizer, 0.25)
    found = rules(optimizer)
    assert {found[name] for name in found if name.endswith("bias")} == {(0.5, 0.0)}
    assert {found[name] for name in found if name.endswith("weight")} == {(0.25, 1e-4)}
    assert len(optimizer.param_groups) == 2


def test_parameters_are_those_of_the_model_without_the_frozen():
    model = make_model()
    optimizer = build_optimizer(model, SolverConfig())
    ids = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in model.parameters() if p.requires_grad)


def test_a_model_without_trainable_parameters_is_refused():
    with pytest.raises(EngineError, match="no trainable parameter"):
        build_optimizer(nn.Linear(2, 2).requires_grad_(False), SolverConfig())


def test_adamw_with_a_learning_rate_on_an_npu_is_refused():
    npu = types.SimpleNamespace(type="npu")  # which a stock torch does not know by name
    with pytest.raises(EngineError, match="AdamW cannot be captured on an NPU"):
        build_optimizer(make_model(), SolverConfig(optimizer="adamw"), lr_on=npu)


def test_steps_follow_the_update_rule():
    """v <- momentum v + g + decay w; w <- w - lr v, from v = 0 (Sutskever et al. as in torch)."""
    model = nn.Linear(3, 1, bias=False)
    optimizer = build_optimizer(model, SolverConfig(momentum=0.9, weight_decay=0.1))
    weight = model.weight.detach().clone().double()
    velocity = torch.zeros_like(weight)
    for step in range(4):
        gradient = torch.full_like(weight, step + 1.0)
        model.weight.grad = gradient.float()
        set_lr(optimizer, 0.01 * (step + 1))
        optimizer.step()
        velocity = 0.9 * velocity + gradient + 0.1 * weight
        weight = weight - 0.01 * (step + 1) * velocity
    torch.testing.assert_close(model.weight.double(), weight, rtol=1e-6, atol=1e-6)


def test_an_overflow_in_the_first_step_leaves_no_trace():
    model = nn.Linear(64, 64)
    before = model.weight.detach().clone()
    optimizer = build_optimizer(model, SolverConfig())
    model(torch.full((1, 64), torch.inf)).sum().backward()
    optimizer.grad_scale, optimizer.found_inf = None, torch.ones(())
    optimizer.step()
    assert torch.equal(model.weight, before)
    assert all(not state["momentum_buffer"].any() for state in optimizer.state.values())


class Layered(nn.Sequential):
    def batch_part(self, index, count, mean):
        return None

    def layer_groups(self):
        return (("stem.",), ("block.",))


def test_layers_have_their_own_rate():
    plain, model = nn.Sequential(), Layered()
    for name in ("stem", "block", "head"):
        plain.add_module(name, nn.Linear(2, 2))
        model.add_module(name, nn.Linear(2, 2))
    with pytest.raises(EngineError, match="needs a model that names its layers"):
        build_optimizer(plain, SolverConfig(layer_decay=0.5))
    optimizer = build_optimizer(model, SolverConfig(layer_decay=0.5))
    set_lr(optimizer, 1.0)
    assert {name: lr for name, (lr, _) in rules(optimizer).items() if name.endswith("weight")} == {
        "stem.weight": 0.25,
        "block.weight": 0.5,
        "head.weight": 1.0,
    }


def test_half_a_trainable_model_is_refused():
    model = nn.Linear(2, 2)
    model.layer_groups = lambda: (("weight",),)
    with pytest.raises(EngineError, match="has the method layer_groups but not batch_part"):
        build_optimizer(model, SolverConfig(layer_decay=0.5))


@pytest.mark.parametrize("lr_on", [None, torch.device("cpu")])
def test_adamw_follows_torch(lr_on):
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    other = nn.Linear(3, 2)
    other.load_state_dict(model.state_dict())
    config = SolverConfig(optimizer="adamw", weight_decay=0.1, bias_weight_decay=0.1, betas=(0.8, 0.9))
    optimizer = build_optimizer(model, config, lr_on=lr_on)
    reference = torch.optim.AdamW(other.parameters(), lr=0.01, weight_decay=0.1, betas=(0.8, 0.9))
    for step in range(3):
        for net in (model, other):
            net.zero_grad()
            net(torch.full((1, 3), step + 1.0)).square().sum().backward()
        set_lr(optimizer, 0.01)
        optimizer.step()
        reference.step()
    torch.testing.assert_close(model.state_dict(), other.state_dict())


def test_no_decay_by_pattern(small):
    model = small.make_net()
    optimizer = build_optimizer(model, SolverConfig(weight_decay=0.1, no_decay=("body.1.*",)))
    decays = {name: group["weight_decay"] for group in optimizer.param_groups for name in group["names"]}
    assert {name: decay for name, decay in decays.items() if decay == 0}.keys() == {
        name for name in decays if name.startswith("body.1.")
    }
    with pytest.raises(EngineError, match=r"solver\.no_decay has the pattern 'neck\.\*'"):
        build_optimizer(model, SolverConfig(no_decay=("neck.*",)))


def test_rates_by_pattern(small):
    model = small.make_net()
    optimizer = build_optimizer(model, SolverConfig(rates={"body.*": 0.1, "body.1.*": 0.5}))
    factors = {name: group["lr_factor"] for group in optimizer.param_groups for name in group["names"]}
    assert factors["body.0.weight"] == pytest.approx(0.1)
    assert factors["body.1.bias"] == pytest.approx(0.5)
    assert factors["head.weight"] == 1
    with pytest.raises(EngineError, match=r"solver\.rates has the pattern 'neck\.\*'"):
        build_optimizer(model, SolverConfig(rates={"neck.*": 0.1}))
