import gc

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import det_ops
from det_ops import live_rows
from det_ops.backends.cpu import winograd
from testing.comparing import assert_same_gradients

OPERATOR = "det_ops_conv3x3"


def arguments(
    batch: int = 2,
    channels: int = 32,
    out: int = 40,
    size: tuple[int, int] = (30, 25),
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = (batch, channels, *size), (out, channels, 3, 3), (out,)
    images, weight, bias = (torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes)
    return images.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()


def is_filtered(found: Tensor) -> bool:
    return found.grad_fn is not None and OPERATOR in found.grad_fn.name()


@given(
    batch=st.integers(1, 7),
    channels=st.integers(32, 70),
    out=st.integers(32, 70),
    height=st.integers(3, 40),
    width=st.integers(3, 40),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    biased=st.booleans(),
    share=st.booleans(),
)
def test_it_is_the_convolution(
    batch: int, channels: int, out: int, height: int, width: int, padding: tuple[int, int], biased: bool, share: bool
) -> None:
    images, weight, bias = arguments(batch, channels, out, (height, width), torch.float64)
    added = bias if biased else None
    found = winograd.forward(images.detach(), weight.detach(), added, padding, share=share)
    torch.testing.assert_close(found, F.conv2d(images, weight, added, 1, padding).detach(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        winograd.forward(images.detach(), weight.detach(), added, padding, relu=True, share=share),
        found.relu(),
        rtol=0,
        atol=0,
    )


@given(
    batch=st.integers(1, 9),
    height=st.integers(3, 16),
    width=st.integers(3, 16),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    share=st.booleans(),
)
def test_gradients_of_small_maps(batch: int, height: int, width: int, padding: tuple[int, int], share: bool) -> None:
    images, weight, _ = arguments(batch, 32, 33, (height, width), torch.float64)
    expected = F.conv2d(images, weight, None, 1, padding)
    grad = torch.randn_like(expected)
    found = winograd.backward(grad, images.detach(), weight.detach(), padding, [True, True], share=share)
    for ours, theirs in zip(found, torch.autograd.grad(expected, (images, weight), grad), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_small_maps_share_tiles() -> None:
    assert winograd._arrange(16, (14, 14), (1, 1), share=True).tiles == 15 * 15
    assert winograd._arrange(100, (14, 14), (1, 1), share=True).tiles < 100 * 14.4
    assert winograd._arrange(2, (120, 160), (1, 1), share=True).tiles == 2 * 30 * 40
    assert winograd._arrange(16, (14, 14), (1, 1), share=False).tiles == 16 * 16


def test_an_image_does_not_depend_on_the_others() -> None:
    images, weight, bias = (tensor.detach() for tensor in arguments(9, size=(14, 14)))
    expected = det_ops.conv2d(images, weight, bias, padding=1)
    images[4] = float("nan")
    images[7] *= 1e6
    found = det_ops.conv2d(images, weight, bias, padding=1)
    others = [0, 1, 2, 3, 5, 6, 8]
    assert torch.equal(found[others], expected[others])


@pytest.mark.parametrize("layout", ["nchw", "channels_last", "strided"])
@pytest.mark.parametrize("threads", [1, 3])
def test_gradients(layout: str, threads: int) -> None:
    images, weight, bias = arguments(dtype=torch.float64)
    with torch.no_grad():
        if layout == "channels_last":
            images, weight = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (images, weight))
        elif layout == "strided":
            images = torch.cat([images, images], 3)[:, :, :, ::2]
    inputs = images.requires_grad_(), weight.requires_grad_(), bias
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = det_ops.conv2d(*inputs, padding=1)
        assert is_filtered(found)
        expected = F.conv2d(*inputs, padding=1)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
        assert_same_gradients(found, expected, inputs, rtol=1e-9, atol=1e-9)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_more_channels_than_are_computed_at_once(dtype: torch.dtype) -> None:
    inputs = arguments(2, 33, 300, (23, 22), dtype)
    wide = tuple(tensor.detach().double().requires_grad_() for tensor in inputs)
    expected = F.conv2d(*wide, padding=1)
    grad = torch.randn_like(expected)
    every = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 7):
            torch.set_num_threads(threads)
            found = det_ops.conv2d(*inputs, padding=1)
            assert is_filtered(found)
            every.append([found, *torch.autograd.grad(found, inputs, grad.to(dtype))])
    finally:
        torch.set_num_threads(before)
    small = 1e-11 if dtype == torch.float64 else 2e-5
    for one, seven, true in zip(*every, [expected, *torch.autograd.grad(expected, wide, grad)], strict=True):
        for found in (one.double(), seven.double()):
            torch.testing.assert_close(found, true, rtol=0, atol=small * float(true.detach().abs().max()))
    # The order of sums is ours, whoever takes which tile; the weights' gradient is a product of PyTorch's.
    assert torch.equal(every[0][0], every[1][0])
    assert torch.equal(every[0][1], every[1][1])


def test_rounding() -> None:
    images, weight, _ = arguments(4, 256, 256, (28, 28))
    exact = F.conv2d(images.detach().double(), weight.detach().double(), padding=1)
    error = det_ops.conv2d(images, weight, padding=1).double() - exact
    assert error.square().mean().sqrt() < 3e-6 * exact.square().mean().sqrt()
    assert error.abs().max() < 2e-5 * exact.square().mean().sqrt()


@pytest.fixture(params=[True, False], ids=["pairs", "by_float32"])
def pairs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both kinds of processors: those that multiply bfloat16 numbers, and others."""
    if request.param and not winograd._PAIRS:
        pytest.skip("this processor does not multiply bfloat16 numbers")
    monkeypatch.setattr(winograd, "_PAIRS", request.param)
    monkeypatch.setattr(winograd, "_TILES_OF_BFLOAT16", False)
    return request.param


def root_mean_square(values: Tensor) -> float:
    return float(values.detach().double().square().mean().sqrt())


def assert_near(found: Tensor, true: Tensor, size: float) -> None:
    error = found.float() - true
    assert root_mean_square(error) < size * root_mean_square(true)
    assert float(error.detach().abs().max()) < 8 * size * float(true.detach().abs().max())


@pytest.mark.parametrize("channels", [(32, 32), (34, 70), (256, 300)])
def test_bfloat16_differs_from_float32_by_its_rounding(pairs: bool, channels: tuple[int, int]) -> None:
    inputs = tuple(tensor.bfloat16().detach() for tensor in arguments(2, *channels, (29, 26)))
    exact = tuple(tensor.float().requires_grad_() for tensor in inputs)
    ours = tuple(tensor.clone().requires_grad_() for tensor in inputs)
    found, expected = det_ops.conv2d(*ours, padding=1), F.conv2d(*exact, padding=1)
    assert is_filtered(found)
    assert found.dtype == torch.bfloat16
    grad = torch.randn_like(expected).bfloat16()
    gradients = torch.autograd.grad(found, ours, grad), torch.autograd.grad(expected, exact, grad.float())
    # 2^-9 at most for the result, a third of it for the most part.
    for one, true in zip((found, *gradients[0]), (expected, *gradients[1]), strict=True):
        assert_near(one, true, 2**-8)
    winograd.prepack(constant := inputs[1])
    found = det_ops.conv2d(inputs[0], constant, inputs[2], padding=1)
    # The transformed numbers are rounded to it too.
    assert_near(found, expected, 2**-6 if pairs else 2**-8)


def test_bfloat16_values_that_are_not_numbers_stay(pairs: bool) -> None:
    images, weight, bias = (tensor.bfloat16().detach() for tensor in arguments(size=(30, 30)))
    images[0, 3, 5, 6] = float("nan")
    found = winograd.forward(images, weight, bias, (1, 1), relu=True)
    assert found[0, :, 4:7, 5:8].isnan().all()
    assert not found[0, :, 20:].isnan().any()
    assert (found[1] >= 0).all()


@pytest.mark.parametrize("threads", [1, 3])
def test_autocast_filters_in_bfloat16(pairs: bool, threads: int) -> None:
    images, weight, bias = arguments(2, 32, 40)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            found = det_ops.conv2d(images, weight, bias, padding=1)
    finally:
        torch.set_num_threads(before)
    assert is_filtered(found)
    expected = det_ops.conv2d(images.bfloat16(), weight.bfloat16(), bias.bfloat16(), padding=1)
    assert torch.equal(found, expected)
    found.float().sum().backward()
    assert [tensor.grad.dtype for tensor in (images, weight, bias)] == [torch.float32] * 3
    if pairs:  # of an odd number of channels no pairs can be made
        assert not is_filtered(det_ops.conv2d(images.bfloat16(), torch.zeros(33, 32, 3, 3).bfloat16(), padding=1))


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_only_what_is_trained(frozen: int) -> None:
    tensors = [tensor.detach().requires_grad_(i != frozen) for i, tensor in enumerate(arguments())]
    det_ops.conv2d(tensors[0], tensors[1], tensors[2], padding=1).sum().backward()
    expected = [tensor.detach().requires_grad_(i != frozen) for i, tensor in enumerate(tensors)]
    F.conv2d(expected[0], expected[1], expected[2], padding=1).sum().backward()
    for ours, theirs in zip(tensors, expected, strict=True):
        if theirs.grad is None:
            assert ours.grad is None
        else:
            assert ours.grad is not None
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-2)


def test_values_that_are_not_numbers_stay() -> None:
    images, weight, bias = (tensor.detach() for tensor in arguments())
    images[0, 3, 5, 6] = float("nan")
    found = winograd.forward(images, weight, bias, (1, 1), relu=True)
    expected = F.conv2d(images, weight, bias, padding=1)
    assert found[expected.isnan()].isnan().all()
    assert not found[1].isnan().any()


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((40, 32, 3, 3), {"stride": 2}),
        ((40, 32, 3, 3), {"dilation": 2, "padding": 2}),
        ((40, 8, 3, 3), {"groups": 4, "padding": 1}),
        ((40, 32, 3, 3), {"padding": "same"}),
        ((40, 32, 3, 3), {"padding": 3}),
        ((40, 32, 1, 1), {}),
        ((4, 32, 3, 3), {"padding": 1}),
    ],
)
def test_other_convolutions_are_pytorchs(shape: tuple[int, ...], options: dict) -> None:
    images = arguments()[0]
    weight = torch.randn(shape, requires_grad=True)
    found = det_ops.conv2d(images, weight, **options)
    assert not is_filtered(found)
    assert torch.equal(found, F.conv2d(images, weight, **options))


def test_small_maps_float16_and_the_reference_are_pytorchs() -> None:
    images, weight, bias = arguments()
    assert not is_filtered(det_ops.conv2d(images[:, :, :9, :9], weight, bias, padding=1))
    assert not is_filtered(det_ops.conv2d(images.half(), weight.half(), padding=1))
    with torch.autocast("cpu", torch.float16):
        assert det_ops.conv2d(images, weight, bias, padding=1).dtype == torch.float16
    with det_ops.kernels("reference"):
        assert not is_filtered(det_ops.conv2d(images, weight, bias, padding=1))


def test_what_does_not_fit_together_is_pytorchs_to_refuse() -> None:
    images, weight, bias = arguments()
    for wrong in (
        (images[:, :8], weight, bias),
        (images, weight, bias[:8]),
        (images, weight, bias.double()),
        (images, weight.double(), bias),
    ):
        with pytest.raises(RuntimeError):
            det_ops.conv2d(*wrong, padding=1)
    with pytest.raises(RuntimeError, match="negative padding"):
        det_ops.conv2d(images, weight, padding=-1)


def test_second_derivatives_are_refused() -> None:
    images, weight, bias = arguments()
    (grad,) = torch.autograd.grad(
        det_ops.conv2d(images, weight, bias, padding=1).square().sum(), images, create_graph=True
    )
    with pytest.raises(RuntimeError, match="differentiable once"):
        grad.sum().backward()


def test_operator() -> None:
    images, weight, bias = arguments(1, 3, 4, (6, 7), torch.float64)
    torch.library.opcheck(torch.ops.det_ops.conv3x3.default, (images, weight, bias, [1, 1]))
    assert torch.ops.det_ops.conv3x3(images[:0], weight, bias, [1, 1]).shape == (0, 4, 6, 7)


def test_programs_keep_pytorchs_convolution() -> None:
    images, weight, bias = (tensor.detach() for tensor in arguments())
    module = det_ops.Conv2d.convert(nn.Conv2d(32, 40, 3, padding=1))
    module.load_state_dict({"weight": weight, "bias": bias})
    program = torch.export.export(module, (images,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    assert "det_ops" not in str(program.graph)
    assert program.module()(images[:1]).shape == (1, 40, 30, 25)
    torch.testing.assert_close(program.module()(images), module(images), rtol=1e-4, atol=1e-4)
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(images), module(images), rtol=1e-4, atol=1e-4)


def test_a_network_is_converted_in_place() -> None:
    class Special(nn.Conv2d):
        pass

    network = nn.Sequential(
        nn.Conv2d(3, 32, 7, 2), nn.Sequential(nn.Conv2d(32, 40, 3, padding=1), nn.ReLU()), Special(40, 40, 3)
    )
    parameters, images = dict(network.named_parameters()), torch.randn(1, 3, 90, 90)
    expected = network(images)
    assert det_ops.Conv2d.convert(network) is network
    assert [type(module) for module in network.modules() if isinstance(module, nn.Conv2d)] == [
        nn.Conv2d,
        det_ops.Conv2d,
        Special,
    ]
    after = dict(network.named_parameters())
    assert after.keys() == parameters.keys()
    assert all(after[name] is parameter for name, parameter in parameters.items())
    found = network(images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    found.sum().backward()
    assert all(parameter.grad is not None for parameter in parameters.values())
    reflecting = det_ops.Conv2d.convert(nn.Conv2d(32, 32, 3, padding=1, padding_mode="reflect"))
    assert reflecting(torch.randn(1, 32, 40, 40)).shape == (1, 32, 40, 40)


class Transformations:
    """Counts the transformations of weights."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        original = winograd._panels

        def counted(*args, **options) -> Tensor:
            self.count += 1
            return original(*args, **options)

        monkeypatch.setattr(winograd, "_panels", counted)

    def of(self, action) -> int:
        before = self.count
        action()
        return self.count - before


def network() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(32, 40, 3, padding=1), nn.ReLU(), nn.Conv2d(40, 40, 1), nn.Conv2d(40, 32, 3))
    return det_ops.Conv2d.convert(layers), torch.randn(2, 32, 30, 25)


def test_prepacked_weights_are_not_transformed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    layers, images = network()
    expected = layers(images).detach()
    transformations = Transformations(monkeypatch)
    assert transformations.of(lambda: layers(images)) == 2
    assert det_ops.Conv2d.prepack(layers) is layers
    with torch.inference_mode():
        assert transformations.of(lambda: layers(images)) == 0
        assert torch.equal(layers(images), expected)
        # The functions that are handed the weight have them too.
        rows = live_rows.convolution_rows(images, layers[0].weight, layers[0].bias, torch.tensor(2), padding=1)
        assert transformations.count == 2 + 2
        torch.testing.assert_close(
            rows, F.conv2d(images, layers[0].weight, layers[0].bias, padding=1), atol=1e-4, rtol=0
        )
    # Gradients of the input still flow.
    images.requires_grad_()
    layers(images).sum().backward()
    assert images.grad is not None
    assert layers[0].weight.grad is None


def test_prepacked_weights_serve_smaller_maps() -> None:
    layers, _ = network()
    images = torch.randn(2, 32, 14, 14, requires_grad=True)
    assert not is_filtered(layers[0](images))
    det_ops.Conv2d.prepack(layers)
    assert is_filtered(layers[0](images))


def write(layers: nn.Module) -> None:
    layers[0].weight.mul_(2)


def load(layers: nn.Module) -> None:
    layers.load_state_dict({name: tensor * 2 for name, tensor in layers.state_dict().items()})


def move(layers: nn.Module) -> None:
    layers.bfloat16().float()


def replace(layers: nn.Module) -> None:
    layers[0].weight = nn.Parameter(layers[0].weight * 2, requires_grad=False)


def train(layers: nn.Module) -> None:
    layers.requires_grad_(True)
    optimizer = torch.optim.SGD(layers.parameters(), lr=1e-3, fused=True)  # which raises no version
    with torch.enable_grad():
        layers(torch.ones(2, 32, 30, 25)).sum().backward()
    optimizer.step()


def test_only_convolutions_that_are_served_are_prepacked() -> None:
    layers = nn.Sequential(
        nn.Conv2d(64, 64, 3, groups=2), nn.Conv2d(64, 64, 3, dilation=2), nn.Conv2d(64, 64, 3), nn.Conv2d(64, 8, 3)
    )
    det_ops.Conv2d.prepack(det_ops.Conv2d.convert(layers))
    assert [winograd.prepacked(layer.weight) is not None for layer in layers] == [False, False, True, False]
    assert not any(parameter.requires_grad for parameter in layers.parameters())


def test_prepacking_within_inference_mode_and_without_values() -> None:
    with torch.inference_mode():
        layers, images = network()
        expected = layers(images)
        det_ops.Conv2d.prepack(layers)
        assert torch.equal(layers(images), expected)
    with FakeTensorMode():
        layers, images = network()
        assert det_ops.Conv2d.prepack(layers)(images).shape == expected.shape


@pytest.mark.parametrize("change", [write, load, move, replace, train])
def test_prepacked_weights_that_change_are_followed(change) -> None:
    layers, images = network()
    det_ops.Conv2d.prepack(layers)
    with torch.no_grad():
        before = layers[0](images)
        change(layers)
        after = layers[0](images)
        torch.testing.assert_close(
            after, F.conv2d(images, layers[0].weight, layers[0].bias, padding=1), atol=1e-3, rtol=0
        )
        assert not torch.allclose(before, after, atol=1e-5)
        if change is train:
            layers.requires_grad_(False)
            assert torch.equal(layers[0](images), after)


def test_prepacked_weights_go_with_their_network() -> None:
    gc.collect()
    before = len(winograd._PREPACKED)
    layers, _ = network()
    det_ops.Conv2d.prepack(layers)
    assert len(winograd._PREPACKED) == before + 2
    del layers
    gc.collect()
    assert len(winograd._PREPACKED) == before
