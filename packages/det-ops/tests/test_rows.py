import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import det_ops
from det_ops import live_rows
from testing.comparing import assert_same_gradients

KINDS = {
    "3x3": ((4, 8, 3, 3), {"padding": 1}),
    "rectified": ((4, 8, 3, 3), {"padding": 1, "relu": True}),
    "1x1": ((4, 8, 1, 1), {}),
    "strided": ((4, 8, 3, 2), {"stride": 2, "padding": 1}),
}


def arguments(kind: str, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, dict]:
    generator = torch.Generator().manual_seed(0)
    shape, options = KINDS[kind]
    images, weight, bias = (torch.randn(s, generator=generator, dtype=dtype) for s in ((5, 8, 6, 7), shape, (4,)))
    return images.requires_grad_(), weight.requires_grad_(), bias.requires_grad_(), options


def definition(images: Tensor, weight: Tensor, bias: Tensor | None, count: int, options: dict) -> Tensor:
    options = dict(options)
    relu = options.pop("relu", False)
    live = (torch.arange(len(images)) < count)[:, None, None, None]
    out = F.conv2d(images, weight, bias, **options) * live
    return out.relu() if relu else out


@pytest.mark.parametrize("count", [0, 1, 3, 5])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("biased", [True, False])
def test_values_and_gradients(kernels: str, kind: str, count: int, biased: bool) -> None:
    images, weight, bias, options = arguments(kind)
    inputs = (images, weight, bias) if biased else (images, weight)
    found = live_rows.convolution_rows(images, weight, bias if biased else None, torch.tensor(count), **options)
    expected = definition(images, weight, bias if biased else None, count, options)
    torch.testing.assert_close(found, expected)
    assert_same_gradients(found, expected, inputs, rtol=1e-4, atol=1e-4)


def test_frozen_parameters_and_inputs(kernels: str) -> None:
    for i in range(3):
        images, weight, bias, options = arguments("3x3")
        tensors = [tensor.detach().requires_grad_(j == i) for j, tensor in enumerate((images, weight, bias))]
        found = live_rows.convolution_rows(*tensors, torch.tensor(2), **options)
        expected = definition(*tensors, 2, options)
        grad = torch.randn_like(expected)
        ours, theirs = (torch.autograd.grad(out, tensors[i], grad)[0] for out in (found, expected))
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_count_is_clamped(kernels: str) -> None:
    images, weight, bias, options = arguments("3x3")
    for count in (-3, 9):
        found = live_rows.convolution_rows(images, weight, bias, torch.tensor(count), **options)
        torch.testing.assert_close(found, definition(images, weight, bias, count, options))


def test_dead_rows_are_not_read_on_the_cpu() -> None:
    images, weight, bias, options = arguments("3x3")
    images = images.detach()
    images[2:] = float("nan")
    found = live_rows.convolution_rows(images.requires_grad_(), weight, bias, torch.tensor(2), **options)
    found.sum().backward()
    for tensor in (found, images.grad, weight.grad, bias.grad):
        assert tensor is not None
        assert tensor.isfinite().all()
    assert images.grad is not None
    assert not images.grad[2:].any()


@pytest.mark.parametrize("layout", ["channels_last", "strided", "no rows"])
def test_layouts(kernels: str, layout: str) -> None:
    images, weight, bias, options = arguments("3x3")
    images = images.detach()
    match layout:
        case "channels_last":
            images = images.contiguous(memory_format=torch.channels_last)
        case "strided":
            images = images.transpose(2, 3)[:, :, ::2]
        case "no rows":
            images = images[:0]
    count = min(2, len(images))
    found = live_rows.convolution_rows(images.requires_grad_(), weight, bias, torch.tensor(count), **options)
    expected = definition(images, weight, bias, count, options)
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert images.grad is not None


def test_autocast(kernels: str) -> None:
    images, weight, bias, options = arguments("3x3")
    with torch.autocast("cpu", torch.bfloat16):
        found = live_rows.convolution_rows(images, weight, bias, torch.tensor(3), **options)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), definition(images, weight, bias, 3, options), rtol=0.05, atol=0.1)
    found.float().sum().backward()
    assert images.grad is not None
    assert images.grad.dtype == weight.grad.dtype == bias.grad.dtype == torch.float32


@pytest.mark.parametrize("kind", ["3x3", "rectified"])
def test_operator(kind: str) -> None:
    images, weight, bias, options = arguments(kind)
    defaults = {"stride": 1, "padding": 0, "relu": False}
    fixed = tuple((defaults | options).values())
    torch.library.opcheck(torch.ops.det_ops.convolution_rows.default, (images, weight, bias, torch.tensor(3), *fixed))
    assert torch.autograd.gradcheck(
        lambda *tensors: live_rows.convolution_rows(*tensors, torch.tensor(2), **options),
        tuple(tensor.detach()[:3, :, :3, :3].requires_grad_() for tensor in arguments(kind, torch.float64)[:1])
        + arguments(kind, torch.float64)[1:3],
    )


def test_compile_and_export(kernels: str) -> None:
    class Module(torch.nn.Module):
        def forward(self, images: Tensor, weight: Tensor, count: Tensor) -> Tensor:
            return live_rows.convolution_rows(images, weight, None, count, padding=1)

    images, weight, _, _ = (tensor.detach() if isinstance(tensor, Tensor) else tensor for tensor in arguments("3x3"))
    every = images, weight, torch.tensor(3)
    expected = Module()(*every)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(Module(), fullgraph=True, backend="aot_eager")(*every), expected)
    torch.testing.assert_close(torch.export.export(Module(), every).module()(*every), expected)


@pytest.mark.parametrize("relu", [False, True])
def test_large_maps(relu: bool) -> None:
    """Enough tiles and channels for minimal filtering."""
    generator = torch.Generator().manual_seed(0)
    images, weight, bias = (
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((9, 32, 14, 14), (36, 32, 3, 3), (36,))
    )
    found = live_rows.convolution_rows(images, weight, bias, torch.tensor(7), padding=1, relu=relu)
    expected = definition(images, weight, bias, 7, {"padding": 1, "relu": relu})
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert_same_gradients(found, expected, (images, weight, bias), rtol=1e-9, atol=1e-9)


def test_dense_form_reads_nothing_on_the_host() -> None:
    images, weight, bias, options = arguments("3x3")
    with FakeTensorMode() as mode, det_ops.kernels("reference"):
        fakes = [mode.from_tensor(tensor) for tensor in (images, weight, bias, torch.tensor(3))]
        assert live_rows.convolution_rows(*fakes, **options).shape == (5, 4, 6, 7)


def test_second_derivatives_are_refused_or_right() -> None:
    images, weight, bias, options = arguments("3x3")
    gradients = []
    for choice in ("auto", "reference"):
        with det_ops.kernels(choice):
            leaf = images.clone().requires_grad_()
            out = live_rows.convolution_rows(leaf, weight, bias, torch.tensor(2), **options)
            (gradient,) = torch.autograd.grad(out.pow(3).sum(), leaf, create_graph=True)
            gradients.append((gradient, leaf))
    torch.testing.assert_close(gradients[0][0], gradients[1][0])
    with pytest.raises(RuntimeError, match="convolution_rows of det_ops is differentiable once"):
        torch.autograd.grad(gradients[0][0].sum(), gradients[0][1])
    assert torch.autograd.grad(gradients[1][0].sum(), gradients[1][1])[0].any()


def test_errors() -> None:
    images, weight, bias, _ = arguments("3x3")
    count = torch.tensor(1)
    with pytest.raises(ValueError, match=r"input must be a floating Tensor\[R, C, H, W\], got float32\[8, 6, 7\]"):
        live_rows.convolution_rows(images[0], weight, bias, count)
    with pytest.raises(ValueError, match=r"weight must be a Tensor\[O, 8, k, k\]"):
        live_rows.convolution_rows(images, weight[:, :5], bias, count)
    with pytest.raises(ValueError, match=r"bias must have shape \[4\]"):
        live_rows.convolution_rows(images, weight, bias[:2], count)
    with pytest.raises(ValueError, match=r"count must be an int64 Tensor\[\]"):
        live_rows.convolution_rows(images, weight, bias, torch.tensor([1]))
    with pytest.raises(ValueError, match=r"weight must be on the device of input"):
        live_rows.convolution_rows(images, weight.to("meta"), bias, count)
