import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder

import det_ops
from testing.compiling import assert_compiles_and_exports

WEIGHTS = st.sampled_from([(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0), (10.0, 8.0, 5.0, 4.0)])


def boxes(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(*shape, 2, generator=generator) * 100
    return torch.cat((corner, corner + torch.rand(*shape, 2, generator=generator) * 60 + 1), -1).to(dtype)


@given(st.integers(0, 2**31), st.integers(1, 9), WEIGHTS)
@settings(max_examples=40, deadline=None)
def test_equal_torchvision(seed: int, n: int, weights: tuple[float, float, float, float]) -> None:
    truth, anchors = boxes(n, seed=seed), boxes(n, seed=seed + 1)
    coder = BoxCoder(weights)
    torch.testing.assert_close(det_ops.encode_boxes(truth, anchors, weights), coder.encode_single(truth, anchors))
    deltas = torch.randn(n, 4, generator=torch.Generator().manual_seed(seed)) * torch.tensor(weights) * 3
    decoded = det_ops.decode_boxes(deltas, anchors, weights)
    torch.testing.assert_close(decoded, coder.decode_single(deltas, anchors), rtol=1e-5, atol=1e-3)


@given(st.integers(0, 2**31), WEIGHTS, st.sampled_from([0.0, 1.0]))
@settings(max_examples=40, deadline=None)
def test_decoding_undoes_encoding(seed: int, weights: tuple[float, ...], offset: float) -> None:
    truth, anchors = boxes(20, seed=seed, dtype=torch.float64), boxes(20, seed=seed + 1, dtype=torch.float64)
    deltas = det_ops.encode_boxes(truth, anchors, weights, offset=offset)
    decoded = det_ops.decode_boxes(deltas, anchors, weights, offset=offset, max_log_scale=math.inf)
    torch.testing.assert_close(decoded, truth)


def test_legacy_centre_and_end() -> None:
    """maskrcnn-benchmark: width 10 for pixels 0 to 9, centre 5, and the decoded end is the last pixel."""
    anchors = torch.tensor([[0.0, 0.0, 9.0, 9.0]])
    assert torch.equal(det_ops.decode_boxes(torch.zeros(1, 4), anchors, offset=1.0), anchors)
    moved = det_ops.encode_boxes(torch.tensor([[1.0, 0.0, 20.0, 9.0]]), anchors, offset=1.0)
    torch.testing.assert_close(moved, torch.tensor([[0.6, 0.0, math.log(2), 0.0]]))


def test_scale_is_clamped() -> None:
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    deltas = torch.tensor([[0.0, 0.0, 9.0, -9.0]])
    sides = det_ops.decode_boxes(deltas, anchors)
    assert (sides[0, 2] - sides[0, 0]).item() == pytest.approx(625)
    assert (sides[0, 3] - sides[0, 1]).item() == pytest.approx(10 * math.exp(-9), abs=1e-5)
    both = det_ops.decode_boxes(deltas, anchors, clamp_below=True, max_log_scale=math.log(2))
    torch.testing.assert_close(both, torch.tensor([[-5.0, 2.5, 15.0, 7.5]]))


def test_class_specific_deltas_broadcast() -> None:
    anchors, deltas = boxes(2, 5), torch.randn(2, 5, 3, 4)
    decoded = det_ops.decode_boxes(deltas, anchors[:, :, None])
    assert decoded.shape == (2, 5, 3, 4)
    assert torch.equal(decoded[:, :, 1], det_ops.decode_boxes(deltas[:, :, 1], anchors))


def test_padding_stays_finite() -> None:
    zeros, some = torch.zeros(3, 4), boxes(3)
    for truth, anchors in ((zeros, zeros), (zeros, some), (some, zeros)):
        assert det_ops.encode_boxes(truth, anchors, (10, 10, 5, 5)).isfinite().all()


def test_gradient() -> None:
    anchors = boxes(4, dtype=torch.float64)
    deltas = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda d: det_ops.decode_boxes(d, anchors, (10, 10, 5, 5)), (deltas,))
    truth = boxes(4, seed=2, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: det_ops.encode_boxes(t, anchors), (truth,))


def test_half_precision_is_computed_in_float32() -> None:
    deltas, anchors = torch.randn(5, 4).bfloat16(), boxes(5)
    assert torch.equal(det_ops.decode_boxes(deltas, anchors), det_ops.decode_boxes(deltas.float(), anchors))


@pytest.mark.parametrize(
    ("deltas", "anchors", "weights", "name"),
    [
        (torch.rand(3, 5), torch.rand(3, 4), (1, 1, 1, 1), "deltas"),
        (torch.rand(3, 4), torch.ones(3, 4, dtype=torch.int64), (1, 1, 1, 1), "anchors"),
        (torch.rand(3, 4), torch.rand(3, 4, device="meta"), (1, 1, 1, 1), "anchors"),
        (torch.rand(3, 4), torch.rand(3, 4), (1, 1), "weights"),
        (torch.rand(3, 4), torch.rand(3, 4), (1, 1, 0, 1), "weights"),
    ],
)
def test_wrong_arguments_are_named(deltas: Tensor, anchors: Tensor, weights: tuple[float, ...], name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must "):
        det_ops.decode_boxes(deltas, anchors, weights)


def test_compile_and_export() -> None:
    def function(deltas: Tensor, anchors: Tensor) -> Tensor:
        return det_ops.decode_boxes(deltas, anchors, (10.0, 8.0, 5.0, 5.0), offset=1.0)

    arguments = torch.randn(5, 4), boxes(5)
    assert_compiles_and_exports(function, arguments, function(*arguments))
