import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import det_ops
from det_ops.reference.sampling import sample as reference
from testing.compiling import assert_compiles_and_exports


@given(
    st.integers(0, 2**31),
    st.integers(1, 3),
    st.integers(0, 400),
    st.integers(0, 300),
    st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    st.sampled_from([(0.0, 0.5), (0.02, 0.9), (0.6, 0.3), (1.0, 0.0)]),
    st.sampled_from(["auto", "reference"]),
)
@settings(max_examples=150, deadline=None)
def test_equals_the_definition(
    seed: int, batch: int, n: int, num: int, fraction: float, shares: tuple[float, float], kernels: str
) -> None:
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(batch, n, generator=generator)
    labels = torch.where(draw < shares[0], 1, torch.where(draw < sum(shares), 0, -1)).to(torch.int8)
    keys = torch.stack([torch.randperm(n, generator=generator) for _ in range(batch)]) / max(n, 1)
    with det_ops.kernels(kernels):
        index, positive, valid = det_ops.subsample(labels, keys, num, fraction)
    assert index.shape == positive.shape == valid.shape == (batch, min(num, n))
    for image in range(batch):
        falling = keys[image].argsort(descending=True)
        positives = falling[labels[image, falling] == 1][: int(num * fraction)]
        negatives = falling[labels[image, falling] == 0][: num - len(positives)]
        used = len(positives) + len(negatives)
        expected = torch.cat((positives, negatives, torch.zeros(min(num, n) - used, dtype=torch.int64)))
        slot = torch.arange(min(num, n))
        assert torch.equal(index[image], expected)
        assert torch.equal(positive[image], slot < len(positives))
        assert torch.equal(valid[image], slot < used)


@pytest.mark.parametrize("kernels", ["auto", "reference"])
def test_every_subset_is_equally_likely(kernels: str) -> None:
    """Two of five negatives: each of the ten pairs a tenth of the time."""
    generator = torch.Generator().manual_seed(0)
    draws = 20_000
    with det_ops.kernels(kernels):
        labels = torch.zeros(draws, 5, dtype=torch.int8)
        index, _, _ = det_ops.subsample(labels, torch.rand(draws, 5, generator=generator), 2, 0.5)
    low, high = index.sort(1).values.unbind(1)
    counts = torch.bincount(low * 5 + high, minlength=25)
    counts = counts[counts > 0]
    assert len(counts) == 10
    # Chi-squared with 9 degrees of freedom is above 27.9 once in a thousand.
    assert ((counts - draws / 10) ** 2 / (draws / 10)).sum() < 27.9


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_key_types_and_strides(dtype: torch.dtype) -> None:
    labels = torch.randint(-1, 2, (6, 2), dtype=torch.int8).t()
    keys = (torch.randperm(12).reshape(6, 2) / 16).t().to(dtype)
    found = det_ops.subsample(labels, keys, 4, 0.5)
    expected = det_ops.subsample(labels.contiguous(), keys.contiguous().float(), 4, 0.5)
    assert all(map(torch.equal, found, expected))


def arguments() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(-1, 2, (2, 60), generator=generator).to(torch.int8)
    return labels, torch.rand(2, 60, generator=generator)


def test_opcheck() -> None:
    torch.library.opcheck(torch.ops.det_ops.sample.default, (*arguments(), 16, 8))


@pytest.mark.parametrize("kernels", ["auto", "reference"])
def test_compile_and_export(kernels: str) -> None:
    def function(labels: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return det_ops.subsample(labels, keys, 16, 0.5)

    expected = function(*arguments())
    with det_ops.kernels(kernels):
        assert_compiles_and_exports(function, arguments(), expected)


def test_reference_reads_nothing_on_the_host() -> None:
    with FakeTensorMode() as mode:
        labels, keys = (mode.from_tensor(argument) for argument in arguments())
        assert reference(labels, keys, 16, 8)[0].shape == (2, 16)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"labels": torch.zeros(2, 60)}, "labels"),
        ({"labels": torch.zeros(60, dtype=torch.int8)}, "labels"),
        ({"keys": torch.rand(2, 59)}, "keys"),
        ({"keys": torch.zeros(2, 60, dtype=torch.int64)}, "keys"),
        ({"keys": torch.rand(2, 60, device="meta")}, "keys"),
        ({"num": -1}, "num"),
        ({"positive_fraction": 1.5}, "positive_fraction"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, object], name: str) -> None:
    labels, keys = arguments()
    right = {"labels": labels, "keys": keys, "num": 16, "positive_fraction": 0.5}
    with pytest.raises(ValueError, match=rf"^{name} must "):
        det_ops.subsample(**(right | change))
