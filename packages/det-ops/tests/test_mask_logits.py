import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from det_ops import live_rows
from testing.comparing import assert_same_gradients


def ends(dtype: torch.dtype = torch.float64, *, rows: int = 5) -> tuple[Tensor, ...]:
    """Features, weights and bias of the upsampling, weights of each row's class."""
    generator = torch.Generator().manual_seed(0)
    shapes = (rows, 6, 4, 5), (6, 3, 2, 2), (3,), (rows, 3)
    return tuple(torch.randn(shape, generator=generator, dtype=dtype, requires_grad=True) for shape in shapes)


def logits(features: Tensor, weight: Tensor, bias: Tensor | None, own: Tensor, count: int) -> Tensor:
    hidden = F.conv_transpose2d(features, weight, bias, stride=2).relu()
    return torch.einsum("ndhw,nd->nhw", hidden, own) * (torch.arange(len(features)) < count)[:, None, None]


@pytest.mark.parametrize("count", [0, 2, 5, 9])
@pytest.mark.parametrize("biased", [True, False])
def test_mask_logits(kernels: str, monkeypatch: pytest.MonkeyPatch, count: int, biased: bool) -> None:
    monkeypatch.setattr("det_ops.reference.live_rows._CACHED", 2 * 4 * 5 * 12 * 8)  # two rows at a time
    features, weight, bias, own = ends()
    inputs = (features, weight, bias, own) if biased else (features, weight, own)
    found = live_rows.mask_logits_rows(features, weight, bias if biased else None, own, torch.tensor(count))
    expected = logits(features, weight, bias if biased else None, own, count)
    torch.testing.assert_close(found, expected)
    assert_same_gradients(found, expected, inputs)


@given(
    rows=st.integers(1, 9),
    depth=st.integers(1, 40),
    channels=st.integers(1, 70),
    size=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    channels_last=st.booleans(),
    threads=st.sampled_from([1, 3]),
)
def test_mask_logits_of_any_size(
    rows: int,
    depth: int,
    channels: int,
    size: tuple[int, int],
    dtype: torch.dtype,
    channels_last: bool,
    threads: int,
) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = (rows, depth, *size), (depth, channels, 2, 2), (channels,), (rows, channels)
    exact = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    features, weight, bias, own = (tensor.to(dtype) for tensor in exact)
    if channels_last:
        features, weight = (tensor.to(memory_format=torch.channels_last) for tensor in (features, weight))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = live_rows.mask_logits_rows(features, weight, bias, own, torch.tensor(rows))
    finally:
        torch.set_num_threads(before)
    small = 1e-4 if dtype == torch.float32 else 1e-11
    expected = logits(*exact, rows)
    torch.testing.assert_close(found.double(), expected, rtol=small, atol=small * float(expected.abs().max()))


def test_mask_logits_keep_values_that_are_not_numbers() -> None:
    features, weight, bias, own = (tensor.detach() for tensor in ends(torch.float32))
    features[1, 2, 3, 4] = float("nan")
    found = live_rows.mask_logits_rows(features, weight, bias, own, torch.tensor(5))
    assert found[1, 6:8, 8:10].isnan().all()
    assert found.isnan().sum() == 4


def test_mask_logits_of_no_rows(kernels: str) -> None:
    inputs = ends(rows=0)
    found = live_rows.mask_logits_rows(*inputs, torch.tensor(0))
    assert found.shape == (0, 8, 10)
    found.sum().backward()


def test_mask_logits_of_dead_rows_are_not_read_on_the_cpu() -> None:
    features, weight, bias, own = (tensor.detach() for tensor in ends())
    features[3:], own[3:] = float("nan"), float("nan")
    inputs = [tensor.requires_grad_() for tensor in (features, weight, bias, own)]
    live_rows.mask_logits_rows(*inputs, torch.tensor(3)).sum().backward()
    for tensor in inputs:
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()


def test_mask_logits_as_an_operator() -> None:
    torch.library.opcheck(torch.ops.det_ops.mask_logits_rows.default, (*ends(), torch.tensor(3)))
    assert torch.autograd.gradcheck(
        lambda *tensors: live_rows.mask_logits_rows(*tensors, torch.tensor(2)), ends(rows=3)
    )
    single = ends(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = live_rows.mask_logits_rows(*single, torch.tensor(5))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), logits(*single, 5), rtol=0.05, atol=0.2)
    found.float().sum().backward()
    assert all(tensor.grad is not None and tensor.grad.dtype == torch.float32 for tensor in single)


@pytest.mark.parametrize("other", range(1, 4))
def test_mask_logits_of_several_types_are_refused(other: int) -> None:
    for one, another in ((torch.float32, torch.float64), (torch.float32, torch.bfloat16)):
        inputs = [tensor.to(one).detach() for tensor in ends()]
        inputs[other] = inputs[other].to(another)
        with pytest.raises(RuntimeError):
            live_rows.mask_logits_rows(*inputs, torch.tensor(5))


def test_mask_logits_errors() -> None:
    features, weight, bias, own = ends()
    count = torch.tensor(1)
    with pytest.raises(ValueError, match=r"weight must be a Tensor\[6, D, 2, 2\]"):
        live_rows.mask_logits_rows(features, weight[:4], bias, own, count)
    with pytest.raises(ValueError, match=r"bias must have shape \[3\]"):
        live_rows.mask_logits_rows(features, weight, bias[:2], own, count)
    with pytest.raises(ValueError, match=r"own must have shape \[5, 3\]"):
        live_rows.mask_logits_rows(features, weight, bias, own[:3], count)
