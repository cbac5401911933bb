from collections.abc import Callable

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import det_ops
from testing.compiling import assert_compiles_and_exports


def boxes(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(*shape, 2, generator=generator) * 100 - 20
    return torch.cat((corner, corner + torch.rand(*shape, 2, generator=generator) * 60), -1).to(dtype)


@given(st.integers(0, 2**31), st.integers(0, 9), st.integers(0, 9), st.sampled_from([torch.float32, torch.float64]))
@settings(max_examples=40, deadline=None)
def test_equal_torchvision(seed: int, n: int, m: int, dtype: torch.dtype) -> None:
    a, b = boxes(n, seed=seed, dtype=dtype), boxes(m, seed=seed + 1, dtype=dtype)
    assert torch.equal(det_ops.box_area(a), torchvision.ops.box_area(a))
    assert torch.equal(det_ops.box_iou(a, b), torchvision.ops.box_iou(a, b))
    torch.testing.assert_close(det_ops.generalized_box_iou(a, b), torchvision.ops.generalized_box_iou(a, b))
    clipped = det_ops.clip_boxes(a, torch.tensor([60, 80]))
    assert torch.equal(clipped, torchvision.ops.clip_boxes_to_image(a, (60, 80)))


@given(st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_legacy_boxes_end_a_pixel_later(seed: int) -> None:
    a, b = boxes(6, seed=seed), boxes(5, seed=seed + 1)
    one = torch.tensor([0.0, 0.0, 1.0, 1.0])
    # Two ways to add the one, rounded differently: coordinates of some 100 pixels, sides of a few.
    close = {"rtol": 1e-5, "atol": 1e-5}
    for function in (det_ops.box_iou, det_ops.generalized_box_iou):
        torch.testing.assert_close(function(a, b, offset=1.0), function(a + one, b + one), **close)
    torch.testing.assert_close(det_ops.box_area(a, offset=1.0), det_ops.box_area(a + one), rtol=1e-5, atol=1e-3)
    sizes = torch.tensor([60, 80])
    torch.testing.assert_close(
        det_ops.clip_boxes(a, sizes, offset=1.0), det_ops.clip_boxes(a, torch.tensor([59.0, 79.0]))
    )


def test_leading_dimensions_broadcast() -> None:
    a, b = boxes(2, 1, 4), boxes(3, 5, seed=1)
    found = det_ops.box_iou(a, b)
    assert found.shape == (2, 3, 4, 5)
    assert torch.equal(found[1, 2], det_ops.box_iou(a[1, 0], b[2]))
    sizes = torch.tensor([[50, 60], [30, 20]], dtype=torch.int32)
    clipped = det_ops.clip_boxes(boxes(2, 7), sizes)
    for image, (height, width) in enumerate(sizes.tolist()):
        assert torch.equal(clipped[image], torchvision.ops.clip_boxes_to_image(boxes(2, 7)[image], (height, width)))


def test_boxes_without_extent() -> None:
    """Finite values and gradients: padding must never turn a masked loss into NaN."""
    a = torch.zeros(2, 4, requires_grad=True)
    for function in (det_ops.box_iou, det_ops.generalized_box_iou):
        value = function(a, torch.zeros(3, 4))
        assert not value.any()
        (gradient,) = torch.autograd.grad(value.sum(), a)
        assert gradient.isfinite().all()


@pytest.mark.parametrize("function", [det_ops.box_iou, det_ops.generalized_box_iou])
def test_gradient(function: Callable[..., Tensor]) -> None:
    a, b = boxes(3, dtype=torch.float64).requires_grad_(), boxes(4, seed=1, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(function, (a, b))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    a, b = boxes(4).to(dtype), boxes(5, seed=1).to(dtype)
    assert torch.equal(det_ops.box_iou(a, b), det_ops.box_iou(a.float(), b.float()))
    assert det_ops.box_area(a).dtype == torch.float32
    assert det_ops.clip_boxes(a, torch.tensor([9, 9])).dtype == dtype


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: det_ops.box_area(torch.rand(3, 5)), "boxes"),
        (lambda: det_ops.box_area(torch.ones(3, 4, dtype=torch.int64)), "boxes"),
        (lambda: det_ops.box_iou(torch.rand(4), torch.rand(3, 4)), "a"),
        (lambda: det_ops.box_iou(torch.rand(3, 4), torch.rand(3, 4, device="meta")), "b"),
        (lambda: det_ops.clip_boxes(torch.rand(3, 4), torch.tensor([1, 2, 3])), "sizes"),
    ],
)
def test_wrong_arguments_are_named(call: Callable[[], Tensor], name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must "):
        call()


def test_compile_and_export() -> None:
    def function(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return det_ops.generalized_box_iou(a, b, offset=1.0), det_ops.clip_boxes(b, b.new_ones(2))

    arguments = boxes(4), boxes(5, seed=1)
    assert_compiles_and_exports(function, arguments, function(*arguments))
