"""Models that come wrapped: saved, resumed and optimized under their plain names."""

import pytest
import torch
from torch import nn

from det_engine import SolverConfig, TrainSettings, TrainStep, checkpoint, train
from det_engine.model import plain_name, unwrapped


class Sharded(nn.Module):
    """Names as FSDP makes them."""

    def __init__(self, module):
        super().__init__()
        self._fsdp_wrapped_module = module

    def forward(self, *args):
        return self._fsdp_wrapped_module(*args)


def compiled(model):
    return torch.compile(model, backend="eager")


def inside(model):
    model.body[0] = Sharded(model.body[0])
    model.head = compiled(model.head)
    return model


@pytest.mark.parametrize("wrap", [compiled, Sharded, nn.DataParallel, inside, lambda model: compiled(Sharded(model))])
def test_a_wrapped_model_trains_and_is_saved_as_itself(wrap, small, tmp_path):
    states = {}
    for name, start, steps in (("plain", small.make_net, 6), ("wrapped", lambda: wrap(small.make_net()), 4)):
        run = small.make_run(tmp_path / name)
        fit(small, start(), run, steps)
        states[name] = run
    assert checkpoint.load(states["wrapped"].last)["model"].keys() == small.make_net().state_dict().keys()
    # What began wrapped goes on plain, and the other way round.
    fit(small, wrap(small.make_net(1)), states["wrapped"], 6, resume=True)
    ours, theirs = (checkpoint.load(states[name].last) for name in ("plain", "wrapped"))
    torch.testing.assert_close(theirs["model"], ours["model"])
    assert [group["names"] for group in theirs["optimizer"]["param_groups"]] == [
        group["names"] for group in ours["optimizer"]["param_groups"]
    ]


def fit(small, model, run, steps, resume=False):
    train(
        model,
        solver=small.make_solver(steps, ema_decay=0.9),
        batches=small.make_batches,
        batch_size=4,
        device=torch.device("cpu"),
        run=run,
        settings=TrainSettings(log_interval=2, display="none"),
        resume=run.path if resume else None,
    )


def test_half_precision_and_layers_know_plain_names(small):
    class Layered(small.Net):
        def forward(self, batch, part=None):
            return super().forward(batch)

        def batch_part(self, index, count, mean):
            return None

        def layer_groups(self):
            return (("body.",),)

    step = TrainStep(
        compiled(inside(Layered())),
        SolverConfig(layer_decay=0.5),
        TrainSettings(precision="O2", loss_scale=128.0),
        torch.device("cpu"),
    )
    step(next(small.make_batches(0)), 0, 0.1)
    assert step.tensors()["body.0.weight"].dtype == torch.float32
    factors = {name: group["lr_factor"] for group in step.optimizer.param_groups for name in group["names"]}
    assert factors["body.0.weight"] == 0.5
    assert factors["head.weight"] == 1


def test_names():
    assert plain_name("_orig_mod.backbone._fsdp_wrapped_module.conv.weight") == "backbone.conv.weight"
    model = nn.Linear(2, 2)
    assert unwrapped(compiled(nn.DataParallel(Sharded(model)))) is model
    assert unwrapped(model) is model
