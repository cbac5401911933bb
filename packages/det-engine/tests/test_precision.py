import pytest
import torch
from torch import nn

from det_engine import EngineError, Precision, SolverConfig, build_optimizer


def make_step(name, cpu, loss_scale=None):
    torch.manual_seed(0)
    model = nn.Linear(8, 4)
    precision = Precision(name, cpu, loss_scale)
    optimizer = build_optimizer(model, SolverConfig(warmup_factor=1.0))
    return model, precision, optimizer


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_products_run_in_the_format_and_weights_stay_float32(cpu, name, dtype):
    model, precision, optimizer = make_step(name, cpu)
    with precision.autocast():
        output = model(torch.randn(2, 8))
    assert output.dtype == dtype
    precision.backward(output.float().sum())
    precision.step(optimizer)
    assert model.weight.dtype == torch.float32
    assert model.weight.grad.dtype == torch.float32


def test_dynamic_scale_is_halved_by_an_overflow_and_the_step_skipped(cpu):
    model, precision, optimizer = make_step("fp16", cpu)
    assert precision.scale() == 65536
    before = model.weight.detach().clone()
    precision.backward(model(torch.full((1, 8), 1e38)).sum())
    precision.step(optimizer)
    assert torch.equal(model.weight, before)
    assert precision.scale() == 32768
    optimizer.zero_grad()
    precision.backward(model(torch.ones(1, 8)).sum())
    precision.step(optimizer)
    assert not torch.equal(model.weight, before)


def test_constant_scale_stays(cpu):
    model, precision, optimizer = make_step("fp16", cpu, loss_scale=128.0)
    for value in (1.0, 1e38, 1.0):
        optimizer.zero_grad()
        precision.backward(model(torch.full((1, 8), value)).sum())
        precision.step(optimizer)
        assert precision.scale() == 128


def test_scaling_does_not_change_the_step(cpu):
    weights = []
    for name, scale in (("fp32", None), ("fp16", 1024.0)):
        model, precision, optimizer = make_step(name, cpu, scale)
        for _ in range(3):
            optimizer.zero_grad()
            precision.backward(model(torch.ones(2, 8)).square().sum())
            precision.step(optimizer, clip_norm=1.0)
        weights.append(model.weight.detach().clone())
    torch.testing.assert_close(*weights, rtol=1e-6, atol=0)


def test_state_goes_on(cpu):
    _, precision, _ = make_step("fp16", cpu)
    other = Precision("fp16", cpu)
    other.load_state_dict({**precision.state_dict(), "scale": 4.0})
    assert other.scale() == 4
    plain = Precision("fp32", cpu)
    plain.load_state_dict(precision.state_dict())
    assert plain.state_dict() == {}
    assert plain.scale() is None


@pytest.mark.parametrize(
    ("name", "scale", "message"),
    [
        ("fp8", None, "one of fp32, tf32, bf16, fp16, O0, O1, O2, got 'fp8'"),
        ("tf32", None, "use fp32 or bf16 on the CPU"),
        ("bf16", 128.0, "belongs to fp16"),
        ("fp16", 0.0, "positive"),
    ],
)
def test_wrong_wishes(cpu, name, scale, message):
    with pytest.raises(EngineError, match=message):
        Precision(name, cpu, scale)
