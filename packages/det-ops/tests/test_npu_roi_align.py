"""RoIAlign as torch_npu has it: the numbers of the vendor's own tests, and what we make of its two operators."""

import types

import pytest
import torch
from torch import Tensor

import det_ops
from det_ops.backends.npu import roi_align as npu
from det_ops.reference import roi_align as reference

MAP = torch.arange(1.0, 37.0).reshape(1, 1, 6, 6)
REGION = torch.tensor([[0, -2.0, -2.0, 22.0, 22.0]])

MODE_0 = [[4.5, 6.5, 8.5], [16.5, 18.5, 20.5], [28.5, 30.5, 32.5]]
MODE_2 = [[2.75, 4.5, 6.5], [13.25, 15.0, 17.0], [25.25, 27.0, 29.0]]
# Of the result of mode 0: what torch_npu's gradient gives where the mode is left out.
GRADIENT_1 = [
    [1.0786, 1.0557, 1.4942, 1.5248, 1.9226, 2.4709],
    [1.0557, 1.0332, 1.4625, 1.4924, 1.8817, 2.4183],
    [3.6872, 3.6087, 4.0380, 4.0679, 4.4572, 5.6097],
    [3.8708, 3.7884, 4.2177, 4.2476, 4.6369, 5.8324],
    [6.2575, 6.1243, 6.5536, 6.5835, 6.9729, 8.7269],
    [8.2847, 8.1084, 8.6403, 8.6774, 9.1598, 11.4575],
]
EDGE = torch.tensor([0.75, 0.5, 0.5, 0.5, 0.5, 0.25])


def regions(rois: Tensor, mode: int) -> Tensor:
    """What a mode means: in mode 1 the ends are inclusive."""
    return rois + torch.tensor([0, 0, 0, 1.0, 1.0]) if mode == 1 else rois


def npu_roi_align(
    features: Tensor, rois: Tensor, scale: float, height: int, width: int, samples: int, mode: int
) -> Tensor:
    """torch_npu's operator, by ours on the CPU."""
    assert features.is_contiguous()
    assert rois.is_contiguous()
    assert features.dtype == rois.dtype == torch.float32
    size = (height, width)
    return det_ops.roi_align(features, regions(rois, mode), size, scale, samples, aligned=mode == 2).contiguous()


def npu_roi_alignbk(
    grad: Tensor, rois: Tensor, shape: list[int], width: int, height: int, scale: float, samples: int, mode: int = 1
) -> Tensor:
    """torch_npu's gradient of it, likewise."""
    assert grad.is_contiguous()
    assert grad.dtype == torch.float32
    features = torch.zeros(shape, requires_grad=True)
    npu_roi_align(features, rois, scale, height, width, samples, mode).backward(grad)
    assert features.grad is not None
    return features.grad


@pytest.mark.parametrize(("mode", "expected"), [(0, MODE_0), (2, MODE_2)])
@pytest.mark.parametrize("kernels", ["auto", "reference"])
def test_forward_gives_the_vendors_numbers(kernels, mode, expected):
    with det_ops.kernels(kernels):
        found = npu_roi_align(MAP, REGION, 0.25, 3, 3, 2, mode)
    torch.testing.assert_close(found[0, 0], torch.tensor(expected))


@pytest.mark.parametrize(
    ("mode", "grad", "expected"),
    [
        (0, torch.ones(1, 1, 3, 3), torch.full((6, 6), 0.25)),
        (1, torch.tensor(MODE_0)[None, None], torch.tensor(GRADIENT_1)),
        (2, torch.ones(1, 1, 3, 3), EDGE[:, None] * EDGE),
    ],
)
@pytest.mark.parametrize("kernels", ["auto", "reference"])
def test_backward_gives_the_vendors_numbers(kernels, mode, grad, expected):
    with det_ops.kernels(kernels):
        found = npu_roi_alignbk(grad, REGION, [1, 1, 6, 6], 3, 3, 0.25, 2, mode)
    torch.testing.assert_close(found[0, 0], expected, atol=1e-4, rtol=0)


@pytest.fixture
def torch_npu(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The two operators on the CPU; the modes they are called with."""
    modes: list[int] = []

    def noted(function):
        def call(*args):
            modes.append(args[-1])
            return function(*args)

        return call

    operators = types.SimpleNamespace(npu_roi_align=noted(npu_roi_align), npu_roi_alignbk=noted(npu_roi_alignbk))
    monkeypatch.setattr(npu, "_operators", lambda: operators)
    return modes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("aligned", [False, True])
def test_levels_padding_and_modes(torch_npu, aligned, sampling_ratio, dtype):
    generator = torch.Generator().manual_seed(0)
    features = [
        torch.rand((2, 3, *size), generator=generator).to(dtype).to(memory_format=torch.channels_last)
        for size in ((12, 20), (6, 10))
    ]
    corner, side = torch.rand((9, 2), generator=generator) * 30, torch.rand((9, 2), generator=generator) * 40
    boxes = torch.cat((corner, corner + side), 1)
    boxes[8] = torch.nan
    index = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1, 0])
    levels = torch.tensor([0, 0, 1, 1, 0, -1, 1, -1, 0])
    arguments = (boxes, index, levels)
    scales = (0.25, 0.125)
    leaves = [feature.float().requires_grad_() for feature in features]
    expected = det_ops.multilevel_roi_align(
        leaves, *arguments, output_size=(3, 4), scales=scales, sampling_ratio=sampling_ratio, aligned=aligned
    )
    found = npu.multilevel_roi_align(features, *arguments, 3, 4, scales, sampling_ratio, aligned, True)
    assert found.dtype == dtype
    tolerance = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 1e-3, "rtol": 1e-3}
    torch.testing.assert_close(found.float(), expected, **tolerance)
    grad = torch.rand(expected.shape, generator=generator)
    expected.backward(grad)
    grads = npu.multilevel_roi_align_backward(
        grad.to(dtype), *arguments, [12, 6], [20, 10], 2, scales, sampling_ratio, aligned
    )
    for one, leaf in zip(grads, leaves, strict=True):
        assert one.dtype == dtype
        assert one.stride() == features[0].new_empty(one.shape).to(memory_format=torch.channels_last).stride()
        torch.testing.assert_close(one.float(), leaf.grad, atol=tolerance["atol"] * 10, rtol=tolerance["rtol"] * 10)
    assert torch_npu == [2 if aligned else 0] * 4


def test_nothing_to_align(torch_npu):
    empty = torch.zeros(0, dtype=torch.int64)
    features = [torch.zeros(2, 3, 4, 4)]
    assert npu.multilevel_roi_align(features, torch.zeros(0, 4), empty, empty, 3, 4, [1.0], 2, True, True).shape == (
        0,
        3,
        3,
        4,
    )
    (grad,) = npu.multilevel_roi_align_backward(
        torch.zeros(0, 3, 3, 4), torch.zeros(0, 4), empty, empty, [4], [4], 2, [1.0], 2, True
    )
    assert grad.shape == (2, 3, 4, 4)
    assert not grad.any()
    assert not torch_npu


def test_the_reference_serves_where_torch_npu_is_not_loaded():
    problem = [torch.rand(1, 2, 5, 5)], torch.rand(3, 4) * 5, *torch.zeros(2, 3, dtype=torch.int64)
    options = (2, 2, [1.0], 2, True, True)
    assert torch.equal(npu.multilevel_roi_align(*problem, *options), reference.multilevel_roi_align(*problem, *options))
