import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import det_ops
from det_ops.reference.top_k import top_k as reference
from testing.compiling import assert_compiles_and_exports

TYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
SPECIAL = [0.0, -0.0, float("inf"), float("-inf"), float("nan"), -1e-30, 1e-30, -3.0]


def by_definition(scores: Tensor, count: int) -> Tensor:
    """Rows sorted by Python: falling, NaN first, of equal ones the lower index first."""
    rows = [
        sorted(range(len(row)), key=lambda i: (not np.isnan(row[i]), -row[i] if row[i] == row[i] else 0, i))[:count]
        for row in scores.double().flatten(0, -2).numpy()
    ]
    return torch.tensor(rows, dtype=torch.int64).reshape(*scores.shape[:-1], count)


@given(
    st.integers(0, 2**31),
    st.sampled_from([(1, 0), (1, 1), (2, 7), (3, 300), (2, 3, 40)]),
    st.floats(0, 1),
    st.sampled_from([2, 9, 1000]),
    st.sampled_from(TYPES),
    st.sampled_from(["auto", "reference"]),
)
@settings(max_examples=100, deadline=None)
def test_equals_the_definition(
    seed: int, shape: tuple[int, ...], share: float, distinct: int, dtype: torch.dtype, kernels: str
) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = ((torch.randint(0, distinct, shape, generator=generator) - distinct / 2) / 7).to(dtype)
    special = torch.tensor(SPECIAL, dtype=dtype)[torch.randint(0, len(SPECIAL), shape, generator=generator)]
    scores = torch.where(torch.rand(shape, generator=generator) < 0.2, special, scores)
    count = round(share * shape[-1])
    with det_ops.kernels(kernels):
        values, indices = det_ops.top_k(scores, count)
    assert torch.equal(indices, by_definition(scores, count))
    assert values.dtype == dtype
    torch.testing.assert_close(values, scores.gather(-1, indices), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("kernels", ["auto", "reference"])
@pytest.mark.parametrize("dtype", TYPES)
def test_worse_scores_between_the_others_change_nothing(kernels: str, dtype: torch.dtype) -> None:
    """What padding is: rows and columns of a map, all worse than what there was."""
    scores = (torch.randn(2, 30, 40) * 2).to(dtype)
    padded = torch.full((2, 37, 51), -torch.inf, dtype=dtype)
    padded[:, :30, :40] = scores
    with det_ops.kernels(kernels):
        values, index = det_ops.top_k(scores.flatten(1), 900)
        padded_values, padded_index = det_ops.top_k(padded.flatten(1), 900)
    assert torch.equal(padded_values, values)
    assert torch.equal(padded_index // 51 * 40 + padded_index % 51, index)
    if dtype in (torch.float16, torch.bfloat16):
        assert len(values[0].unique()) < 900  # there are ties


def test_any_memory_layout() -> None:
    scores = torch.randint(0, 5, (40, 3)).float().t()
    assert torch.equal(det_ops.top_k(scores, 9)[1], det_ops.top_k(scores.contiguous(), 9)[1])


@pytest.mark.parametrize("kernels", ["auto", "reference"])
def test_gradients_reach_the_chosen_scores(kernels: str) -> None:
    scores = torch.tensor([[1.0, 3.0, 3.0, 2.0]], requires_grad=True)
    with det_ops.kernels(kernels):
        values, _ = det_ops.top_k(scores, 2)
    (values * torch.tensor([[10.0, 1.0]])).sum().backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == [[0, 10, 1, 0]]


def test_opcheck() -> None:
    for dtype in TYPES:
        torch.library.opcheck(torch.ops.det_ops.top_k.default, (torch.randint(0, 9, (2, 60)).to(dtype), 16))


@pytest.mark.parametrize("kernels", ["auto", "reference"])
def test_compile_and_export(kernels: str) -> None:
    scores = torch.randint(0, 9, (2, 60)).float()
    expected = det_ops.top_k(scores, 16)
    with det_ops.kernels(kernels):
        assert_compiles_and_exports(lambda scores: det_ops.top_k(scores, 16), [scores], expected)


def test_reference_reads_nothing_on_the_host() -> None:
    with FakeTensorMode() as mode:
        assert reference(mode.from_tensor(torch.rand(2, 60)), 16).shape == (2, 16)


@pytest.mark.parametrize(
    ("scores", "count", "name"),
    [
        (torch.zeros(2, 5, dtype=torch.int64), 2, "scores"),
        (torch.tensor(1.0), 0, "scores"),
        (torch.zeros(2, 5), 6, "count"),
        (torch.zeros(2, 5), -1, "count"),
    ],
)
def test_wrong_arguments_are_named(scores: Tensor, count: int, name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must "):
        det_ops.top_k(scores, count)
