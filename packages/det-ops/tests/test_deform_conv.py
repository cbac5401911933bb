"""Deformable convolution against torchvision's, its own reference, and recorded results."""

import json
from collections.abc import Mapping

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import det_ops

GRADIENTS = ("input", "offset", "weight", "bias", "mask")


def problem(
    batch: int = 2,
    channels: int = 6,
    outputs: int = 4,
    size: tuple[int, int] = (9, 7),
    kernel: tuple[int, int] = (3, 3),
    steps: tuple[int, int, int] = (1, 1, 1),
    groups: int = 1,
    offset_groups: int = 1,
    modulated: bool = True,
    reach: float = 2.0,
    dtype: torch.dtype = torch.float32,
) -> tuple[dict[str, Tensor | None], dict[str, int]]:
    """Tensors and steps of a convolution; `reach` is how far taps move, beyond the border of the map too."""
    generator = torch.Generator().manual_seed(channels * 10 + size[0])
    stride, padding, dilation = steps
    out = [(s + 2 * padding - dilation * (k - 1) - 1) // stride + 1 for s, k in zip(size, kernel, strict=True)]
    taps = kernel[0] * kernel[1] * offset_groups

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    tensors: dict[str, Tensor | None] = {
        "input": draw(batch, channels, *size),
        "offset": draw(batch, 2 * taps, *out) * reach,
        "weight": draw(outputs, channels // groups, *kernel),
        "bias": draw(outputs),
        "mask": draw(batch, taps, *out).sigmoid() if modulated else None,
    }
    return tensors, {"stride": stride, "padding": padding, "dilation": dilation}


def results(function, tensors: dict[str, Tensor | None], steps: dict) -> tuple[Tensor, dict[str, Tensor]]:
    """Output and gradients for a fixed gradient of the output."""
    leaves = {name: None if t is None else t.clone().requires_grad_() for name, t in tensors.items()}
    out = function(**leaves, **steps)
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype)
    used = {name: t for name, t in leaves.items() if t is not None}
    return out.detach(), dict(zip(used, torch.autograd.grad(out, list(used.values()), weight), strict=True))


def compare(found: tuple[Tensor, dict[str, Tensor]], expected: tuple[Tensor, dict[str, Tensor]], **tolerance) -> None:
    torch.testing.assert_close(found[0], expected[0], **tolerance)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        torch.testing.assert_close(found[1][name], gradient, msg=lambda text, n=name: f"{n}: {text}", **tolerance)


@settings(deadline=None, max_examples=30)
@given(
    batch=st.integers(1, 3),
    shape=st.sampled_from([(1, 1, 1, 1), (6, 4, 1, 1), (6, 4, 2, 1), (6, 4, 1, 3), (12, 6, 3, 2), (40, 8, 2, 4)]),
    size=st.tuples(st.integers(3, 12), st.integers(3, 12)),
    kernel=st.sampled_from([(1, 1), (3, 3), (2, 3)]),
    steps=st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(1, 2)),
    modulated=st.booleans(),
    reach=st.sampled_from([0.0, 0.7, 9.0]),
)
@pytest.mark.parametrize("choice", ["auto", "reference"])
def test_is_torchvisions(choice, batch, shape, size, kernel, steps, modulated, reach) -> None:
    channels, outputs, groups, offset_groups = shape
    tensors, steps = problem(
        batch, channels, outputs, size, kernel, steps, groups, offset_groups, modulated, reach, torch.float64
    )
    with det_ops.kernels(choice):
        found = results(det_ops.deform_conv2d, tensors, steps)
    compare(found, results(torchvision.ops.deform_conv2d, tensors, steps), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("number", range(5))
def test_recorded(number: int, kernels: str, parity: Mapping[str, np.ndarray]) -> None:
    record = {
        name.removeprefix(f"deform_conv2d/{number}/"): value
        for name, value in parity.items()
        if name.startswith(f"deform_conv2d/{number}/")
    }
    given = json.loads(record["args"].tobytes())
    tensors = {name: torch.from_numpy(record[name]) if name in record else None for name in GRADIENTS}
    leaves = {name: None if t is None else t.requires_grad_() for name, t in tensors.items()}
    steps = {name: given[name] for name in ("stride", "padding", "dilation") if name in given}
    steps = {name: tuple(value) if isinstance(value, list) else value for name, value in steps.items()}
    out = det_ops.deform_conv2d(**leaves, **steps)
    torch.testing.assert_close(out, torch.from_numpy(record["out"]), rtol=1e-4, atol=1e-4)
    out.backward(torch.from_numpy(record["grad_out"]))
    compared = 0
    for name, leaf in leaves.items():
        if leaf is not None and f"grad_{name}" in record:
            torch.testing.assert_close(leaf.grad, torch.from_numpy(record[f"grad_{name}"]), rtol=1e-4, atol=1e-4)
            compared += 1
    assert compared >= 3


def test_gradients_are_those_of_differences(kernels: str) -> None:
    tensors, steps = problem(1, 2, 2, (4, 4), modulated=True, reach=0.4, dtype=torch.float64)
    leaves = [tensors[name].requires_grad_() for name in GRADIENTS]
    names = dict.fromkeys(GRADIENTS)

    def function(*values: Tensor) -> Tensor:
        return det_ops.deform_conv2d(**dict(zip(names, values, strict=True)), **steps)

    assert torch.autograd.gradcheck(function, leaves)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_sampled_in_float32(kernels: str, dtype: torch.dtype) -> None:
    tensors, steps = problem(channels=16)
    tensors = {name: t.to(dtype) for name, t in tensors.items()}
    found = results(det_ops.deform_conv2d, tensors, steps)
    expected = results(det_ops.deform_conv2d, {name: t.float() for name, t in tensors.items()}, steps)
    assert found[0].dtype == dtype
    exact = expected[0], {name: g.to(dtype) for name, g in expected[1].items()}
    compare((found[0].float(), found[1]), exact, rtol=0.05, atol=0.2 if dtype == torch.bfloat16 else 0.05)


def test_autocast_multiplies_in_half_precision_and_keeps_offsets(kernels: str) -> None:
    tensors, steps = problem()
    with torch.autocast("cpu", torch.bfloat16):
        out, gradients = results(det_ops.deform_conv2d, tensors, steps)
    assert out.dtype == torch.bfloat16
    assert {gradient.dtype for gradient in gradients.values()} == {torch.float32}
    exact, exact_gradients = results(det_ops.deform_conv2d, tensors, steps)
    torch.testing.assert_close(out.float(), exact, rtol=0.05, atol=0.2)
    for name, gradient in gradients.items():
        scale = exact_gradients[name].abs().max()
        torch.testing.assert_close(gradient / scale, exact_gradients[name] / scale, rtol=0.05, atol=0.02)


def test_any_layout_of_memory(kernels: str) -> None:
    tensors, steps = problem(channels=8)
    expected = results(det_ops.deform_conv2d, tensors, steps)
    for layout in (
        lambda t: t.contiguous(memory_format=torch.channels_last) if t.ndim == 4 else t,
        lambda t: t.mT.contiguous().mT if t.ndim == 4 else t,
    ):
        other = {name: layout(t) for name, t in tensors.items()}
        compare(results(det_ops.deform_conv2d, other, steps), expected)
    assert expected[0].is_contiguous(memory_format=torch.channels_last)


def test_an_activation_may_follow_in_place(kernels: str) -> None:
    tensors, steps = problem()

    def activated(**arguments) -> Tensor:
        return det_ops.deform_conv2d(**arguments).relu_()

    def apart(**arguments) -> Tensor:
        return det_ops.deform_conv2d(**arguments).relu()

    compare(results(activated, tensors, steps), results(apart, tensors, steps), rtol=0, atol=0)


def test_nothing(kernels: str) -> None:
    tensors, steps = problem(batch=0)
    out, gradients = results(det_ops.deform_conv2d, tensors, steps)
    assert out.shape == (0, 4, 9, 7)
    assert not gradients["weight"].any()
    assert gradients["offset"].shape == tensors["offset"].shape


def test_samples_that_are_not_finite_are_zero(kernels: str) -> None:
    tensors, steps = problem(channels=2, outputs=2)
    offset = tensors["offset"].clone()
    offset[0, 0, 0, 0], offset[0, 1, 2, 2], offset[1, 4, 3, 3] = float("nan"), float("inf"), -1e30
    out, gradients = results(det_ops.deform_conv2d, tensors | {"offset": offset}, steps)
    assert out.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients.values())


@pytest.mark.parametrize("threads", [1, 2])
def test_more_pixels_than_are_sampled_at_once(threads: int) -> None:
    tensors, steps = problem(channels=20, size=(31, 29), groups=2, offset_groups=2)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = results(det_ops.deform_conv2d, tensors, steps)
    finally:
        torch.set_num_threads(before)
    with det_ops.kernels("reference"):
        compare(found, results(det_ops.deform_conv2d, tensors, steps), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("modulated", [True, False])
def test_opcheck(kernels: str, modulated: bool) -> None:
    tensors, _ = problem(modulated=modulated)
    tensors = {name: None if t is None else t.requires_grad_() for name, t in tensors.items()}
    order = [tensors[name] for name in ("input", "offset", "mask", "weight", "bias")]
    torch.library.opcheck(torch.ops.det_ops.deform_conv2d.default, (*order, [1, 1], [1, 1], [1, 1]))


def test_compiles_and_exports() -> None:
    tensors, steps = problem()
    tensors = dict(tensors)

    def function(*values: Tensor) -> Tensor:
        return det_ops.deform_conv2d(*values[:4], mask=values[4], **steps)

    values = tuple(tensors[name] for name in GRADIENTS)
    expected = function(*values)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*values), expected)

    class Module(torch.nn.Module):
        def forward(self, *values: Tensor) -> Tensor:
            return function(*values)

    torch.testing.assert_close(torch.export.export(Module(), values).module()(*values), expected)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("input", torch.zeros(6, 9, 7), r"input must be a floating Tensor\[B, C, H, W\]"),
        ("input", torch.zeros(2, 6, 2, 2), "input must be as large as the kernel"),
        ("weight", torch.zeros(4, 5, 3, 3), "weight must be Tensor"),
        ("weight", torch.zeros(4, 6, 3, 3, dtype=torch.float64), "weight must be of the dtype of input"),
        ("offset", torch.zeros(2, 17, 9, 7), r"offset must be a floating Tensor\[2, 'D \* 18', 9, 7\]"),
        ("offset", torch.zeros(2, 18, 8, 7), "offset must be a floating Tensor"),
        ("mask", torch.zeros(2, 8, 9, 7), "mask must have shape"),
        ("mask", torch.zeros(2, 9, 9, 7, dtype=torch.int64), "mask must be floating"),
        ("bias", torch.zeros(5), "bias must have shape"),
        ("bias", torch.zeros(4, device="meta"), "bias"),
        ("stride", 0, "stride must be one or two integers"),
        ("dilation", (1, 2, 3), "dilation must be one or two integers"),
        ("padding", -1, "padding must be one or two integers"),
    ],
)
def test_wrong_arguments_are_named(name: str, value: object, message: str) -> None:
    tensors, steps = problem()
    if name == "input" and isinstance(value, Tensor) and value.ndim == 4:
        steps["padding"] = 0
    with pytest.raises(ValueError, match=message):
        det_ops.deform_conv2d(**tensors | steps | {name: value})


def test_second_derivatives_are_refused(kernels: str) -> None:
    tensors, steps = problem(1, 2, 2, (4, 4), modulated=True, reach=0.4)
    offset = tensors["offset"].requires_grad_()
    (gradient,) = torch.autograd.grad(det_ops.deform_conv2d(**tensors, **steps).sum(), offset, create_graph=True)
    with pytest.raises(RuntimeError, match="deform_conv2d of det_ops is differentiable once"):
        gradient.sum().backward()
