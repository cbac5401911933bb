import math

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import det_ops
from det_ops.reference import roi_align as reference
from testing.comparing import assert_same_gradients

FORMATS = (torch.channels_last, torch.contiguous_format)
VARIANTS = [(a, s, p) for a in (0, 1) for s in (0, -1, 1, 2) for p in (7, 14) if p == 7 or s == 2]


@pytest.mark.parametrize(("aligned", "sampling_ratio", "pooled"), VARIANTS)
def test_recorded(parity, kernels: str, aligned: int, sampling_ratio: int, pooled: int) -> None:
    key = f"roi_align/aligned{aligned}_sr{sampling_ratio}_{pooled}"
    if f"{key}/out_sum" not in parity:
        pytest.skip(f"{key} was not recorded")
    features = torch.from_numpy(parity["roi_align/input"]).requires_grad_()
    rois = torch.from_numpy(parity["roi_align/rois"])
    out = det_ops.roi_align(features, rois, pooled, 0.25, sampling_ratio, bool(aligned))
    if f"{key}/out" in parity:
        torch.testing.assert_close(out, torch.from_numpy(parity[f"{key}/out"]), rtol=1e-5, atol=1e-5)
    else:
        sample = torch.from_numpy(parity[f"{key}/out/sample"])
        found = out.flatten()[:: int(parity[f"{key}/out/step"])][: len(sample)]
        torch.testing.assert_close(found, sample, rtol=1e-5, atol=1e-5)
    weight = torch.from_numpy(np.random.RandomState(6).randn(*out.shape).astype(np.float32))
    (out * weight).sum().backward()
    assert features.grad is not None
    recorded = torch.from_numpy(parity[f"{key}/grad_input_b0"])
    torch.testing.assert_close(features.grad[0, :4], recorded, rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(features.grad.norm().item(), float(parity[f"{key}/grad_norm"]), rtol=1e-5, atol=0.0)


@st.composite
def problems(draw: st.DrawFn) -> dict:
    """Regions on, across and off the border, some tiny, some padding; channels that fill vectors or do not."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    batch, levels = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    channels = draw(st.sampled_from([1, 3, 16, 24, 130, 257]))
    sizes = [(draw(st.integers(1, 30)), draw(st.integers(1, 30))) for _ in range(levels)]
    regions = draw(st.integers(0, 12))
    scales = [0.25 / 2**level for level in range(levels)]
    level = torch.randint(-1, levels, (regions,), generator=generator)
    # No longer than the map of its level, which is what the reference promises.
    extent = torch.tensor([[w, h] for h, w in sizes])[level.clamp(min=0)]
    extent = extent / torch.tensor(scales)[level.clamp(min=0)][:, None]
    corner = (torch.rand(regions, 2, generator=generator) * 1.2 - 0.3) * extent
    side = torch.rand(regions, 2, generator=generator) ** 2 * extent
    boxes = torch.cat((corner, corner + side), 1)
    if draw(st.booleans()):
        boxes = boxes.round()
    return {
        "features": [torch.randn(batch, channels, h, w, generator=generator) for h, w in sizes],
        "boxes": boxes,
        "image_index": torch.randint(0, batch, (regions,), generator=generator),
        "levels": level,
        "output_size": (draw(st.integers(1, 7)), draw(st.integers(1, 7))),
        "scales": scales,
        "sampling_ratio": draw(st.sampled_from([-1, 0, 1, 2, 3])),
        "aligned": draw(st.booleans()),
        "memory_format": draw(st.sampled_from(FORMATS)),
    }


def peer(features: list[Tensor], boxes: Tensor, image_index: Tensor, levels: Tensor, **options) -> Tensor:
    """torchvision's operator, level by level."""
    scales, size = options["scales"], options["output_size"]
    rois = torch.cat((image_index[:, None].to(boxes.dtype), boxes), 1)
    parts = [
        torchvision.ops.roi_align(f, rois, size, scale, options["sampling_ratio"], options["aligned"])
        for f, scale in zip(features, scales, strict=True)
    ]
    return sum((part * (levels == i)[:, None, None, None] for i, part in enumerate(parts)), torch.zeros_like(parts[0]))


@pytest.mark.parametrize("choice", ["auto", "reference"])
@given(problem=problems())
@settings(max_examples=60, deadline=None)
def test_equals_torchvision(choice: str, problem: dict) -> None:
    features = [feature.requires_grad_() for feature in problem["features"]]
    with det_ops.kernels(choice):
        found = det_ops.multilevel_roi_align(**problem)
        expected = peer(**problem)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        assert found.is_contiguous(memory_format=problem["memory_format"])
        assert_same_gradients(found, expected, features, rtol=1e-3, atol=1e-3)


def pyramid(dtype: torch.dtype = torch.float32, channels: int = 6) -> dict:
    generator = torch.Generator().manual_seed(3)
    corner = torch.rand(7, 2, generator=generator) * 40
    side = torch.rand(7, 2, generator=generator) * 30
    return {
        "features": [torch.randn(2, channels, *s, generator=generator, dtype=dtype) for s in ((20, 24), (10, 12))],
        "boxes": torch.cat((corner, corner + side), 1).to(dtype),
        "image_index": torch.tensor([0, 1, 0, 1, 1, 0, 0]),
        "levels": torch.tensor([0, 0, 1, -1, 1, 0, -1]),
        "output_size": 3,
        "scales": [0.25, 0.125],
        "sampling_ratio": 0,
        "aligned": True,
    }


@pytest.mark.parametrize("box", [[-1e6, -1e6, 1e6, 1e6], [-300, -2, 900, 30], [5, 5, 5, 5], [1e7, 0, 1e7 + 10, 5]])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("aligned", [True, False])
def test_regions_larger_than_the_map(box: list[float], sampling_ratio: int, aligned: bool) -> None:
    features, rois = torch.randn(1, 4, 11, 13, dtype=torch.float64), torch.tensor([[0.0, *box]], dtype=torch.float64)
    arguments = (features, rois, 2 if max(box) > 1e4 else 7, 0.5, sampling_ratio, aligned)
    if sampling_ratio == 0 and max(box) == 1e6:
        assert det_ops.roi_align(*arguments).isfinite().all()  # a million million samples for torchvision
    else:
        torch.testing.assert_close(det_ops.roi_align(*arguments), torchvision.ops.roi_align(*arguments))


@pytest.mark.parametrize("aligned", [True, False])
def test_reference_of_regions_longer_than_the_maps(aligned: bool) -> None:
    boxes = [
        [0, 0, 9, 9],
        [-1e6, -1e6, 1e6, 1e6],
        [-300, -2, 900, 30],
        [2, -50, 7, 60],
        [5, 40, 300, 2],
        [1e7, 0, 2e7, 9],
    ]
    problem = pyramid() | {
        "boxes": torch.tensor(boxes, dtype=torch.float64),
        "image_index": torch.tensor([0, 1, 1, 0, 0, 1]),
        "levels": torch.tensor([0, 1, 0, 1, 0, 0]),
        "aligned": aligned,
    }
    problem["features"] = [feature.double().requires_grad_() for feature in problem["features"]]
    results = []
    for choice in ("auto", "reference"):
        with det_ops.kernels(choice):
            out = det_ops.multilevel_roi_align(**problem)
            weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(0), dtype=out.dtype)
            results.append((out.detach(), *torch.autograd.grad(out, problem["features"], weight)))
    assert all(results[0][0][i].any() for i in (1, 2, 3))
    torch.testing.assert_close(*results)


def test_reference_of_long_regions_marks_what_it_does_not_look_at() -> None:
    rows, weights = reference.taps(
        *torch.tensor([[0.0, 0.0], [30.0, 9.0]]), torch.full((2,), 10), 10, pooled=2, sampling_ratio=0, aligned=True
    )
    assert rows.shape == weights.shape == (2, 2, 8)
    assert weights[0].isnan().all()
    torch.testing.assert_close(weights[1].sum(-1), torch.ones(2))


@pytest.mark.parametrize("image", [-1, 2])
def test_images_outside_the_batch_are_refused(kernels: str, image: int) -> None:
    problem = pyramid()
    problem["image_index"][6] = image  # of a region that is padding
    det_ops.multilevel_roi_align(**problem)
    problem["image_index"][0] = image
    with pytest.raises(ValueError, match="image_index must be within the batch of 2 images, got"):
        det_ops.multilevel_roi_align(**problem)
    rois = [torch.zeros(1, 4)] * 3
    with pytest.raises(ValueError, match="rois must be at most one tensor for each of 2 images, got 3"):
        det_ops.roi_align(torch.zeros(2, 1, 4, 4), rois, 2)


def test_second_derivatives_are_refused(kernels: str) -> None:
    problem = pyramid()
    fine, coarse = (feature.requires_grad_() for feature in problem["features"])
    out = det_ops.multilevel_roi_align(**problem)
    gradient, _ = torch.autograd.grad(out.square().sum(), (fine, coarse), create_graph=True)
    assert gradient.any()  # the first derivative is there
    with pytest.raises(RuntimeError, match="multilevel_roi_align of det_ops is differentiable once"):
        gradient.sum().backward()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_non_finite_and_reversed_boxes(kernels: str, value: float, sampling_ratio: int) -> None:
    features = torch.ones(1, 3, 8, 8)
    rois = torch.tensor([[0.0, 1, 2, 5, 6]]).repeat(5, 1)
    for i in range(4):
        rois[i, i + 1] = value
    rois[4] = torch.tensor([0.0, 5, 6, 1, 2])
    out = det_ops.roi_align(features, rois, 2, 1.0, sampling_ratio, True)
    assert out.isfinite().all()
    if sampling_ratio == 0:
        assert not out[4].any()
    else:
        torch.testing.assert_close(out[4:], torchvision.ops.roi_align(features, rois[4:], 2, 1.0, 2, True))


def test_padding_is_zero_and_gets_no_gradient(kernels: str) -> None:
    problem = pyramid()
    problem["features"] = [feature.requires_grad_() for feature in problem["features"]]
    problem["boxes"][3] = math.nan
    out = det_ops.multilevel_roi_align(**problem)
    assert not out[[3, 6]].any()
    assert all(out[i].any() for i in (0, 1, 2, 4, 5))
    for gradient in torch.autograd.grad(out[[3, 6]].sum(), problem["features"]):
        assert not gradient.any()


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "strided"])
def test_layouts(kernels: str, layout: str) -> None:
    problem = pyramid()
    expected = peer(**problem | {"output_size": (3, 3)})
    match layout:
        case "channels_last":
            problem["features"] = [f.contiguous(memory_format=torch.channels_last) for f in problem["features"]]
        case "strided":
            problem["features"] = [f.repeat_interleave(2, 1)[:, ::2] for f in problem["features"]]
            problem["boxes"] = problem["boxes"].t().contiguous().t()
            problem["levels"] = problem["levels"].repeat_interleave(2)[::2]
    problem["features"] = [feature.requires_grad_() for feature in problem["features"]]
    out = det_ops.multilevel_roi_align(**problem)
    torch.testing.assert_close(out, expected)
    assert out.is_contiguous(memory_format=torch.channels_last)
    for gradient in torch.autograd.grad(out.sum(), problem["features"]):
        assert gradient.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_memory_format_changes_no_value(kernels: str, dtype: torch.dtype) -> None:
    problem = pyramid(dtype, channels=50)
    features = [feature.requires_grad_() for feature in problem.pop("features")]
    results = []
    for memory_format in FORMATS:
        out = det_ops.multilevel_roi_align(features, **problem, memory_format=memory_format)
        # What a linear layer gives back lies as it read it.
        results.append([out, *torch.autograd.grad(out.flatten(1).square().sum(), features)])
    assert all(map(torch.equal, *results))
    last, contiguous = (out for out, *_ in results)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert contiguous.flatten(1).data_ptr() == contiguous.data_ptr()


def test_channels_last_is_not_copied() -> None:
    from det_ops._layout import nhwc

    for shape in ((2, 5, 3, 4), (1, 1, 3, 4), (2, 5, 1, 1), (1, 5, 1, 4)):
        feature = torch.randn(shape).contiguous(memory_format=torch.channels_last)
        assert nhwc(feature).data_ptr() == feature.data_ptr()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(kernels: str, dtype: torch.dtype) -> None:
    problem = pyramid()
    problem["features"] = [feature.to(dtype) for feature in problem["features"]]
    exact = problem | {"features": [feature.float().requires_grad_() for feature in problem["features"]]}
    problem["features"] = [feature.requires_grad_() for feature in problem["features"]]
    out, expected = det_ops.multilevel_roi_align(**problem), det_ops.multilevel_roi_align(**exact)
    assert out.dtype == dtype
    assert torch.equal(out, expected.to(dtype))
    for ours, theirs in zip(
        torch.autograd.grad(out.sum(), problem["features"]),
        torch.autograd.grad(expected.sum(), exact["features"]),
        strict=True,
    ):
        assert torch.equal(ours, theirs.to(dtype))


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_threads_do_not_change_a_bit(threads: int) -> None:
    problem = pyramid(channels=50)
    results = []
    before = torch.get_num_threads()
    try:
        for number in (1, threads):
            torch.set_num_threads(number)
            features = [feature.clone().requires_grad_() for feature in problem["features"]]
            out = det_ops.multilevel_roi_align(**problem | {"features": features})
            results.append([out, *torch.autograd.grad((out * out).sum(), features)])
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, *results))


def test_no_regions(kernels: str) -> None:
    features = torch.randn(2, 3, 8, 8).requires_grad_()
    for rois in (torch.zeros(0, 5), [torch.zeros(0, 4), torch.zeros(0, 4)]):
        out = det_ops.roi_align(features, rois, (2, 5), 1.0)
        assert out.shape == (0, 3, 2, 5)
        assert not torch.autograd.grad(out.sum(), features)[0].any()


def test_boxes_as_a_list_per_image() -> None:
    features, parts = torch.randn(2, 3, 8, 8), [torch.rand(n, 4).sort().values * 8 for n in (2, 3)]
    expected = torchvision.ops.roi_align(features, parts, 2)
    torch.testing.assert_close(det_ops.roi_align(features, parts, 2), expected)


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_operator(kernels: str, sampling_ratio: int, channels_last: bool) -> None:
    problem = pyramid()
    features = [feature.requires_grad_() for feature in problem["features"]]
    places = (problem[name] for name in ("boxes", "image_index", "levels"))
    arguments = (features, *places, 3, 3, problem["scales"], sampling_ratio, True, channels_last)
    torch.library.opcheck(torch.ops.det_ops.multilevel_roi_align.default, arguments)


@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("aligned", [True, False])
def test_gradient(kernels: str, sampling_ratio: int, aligned: bool) -> None:
    problem = pyramid(torch.float64, channels=2) | {"sampling_ratio": sampling_ratio, "aligned": aligned}
    features = [feature[:, :, ::2, ::2].contiguous().requires_grad_() for feature in problem.pop("features")]
    scales = [scale / 2 for scale in problem.pop("scales")]
    assert torch.autograd.gradcheck(
        lambda *maps: det_ops.multilevel_roi_align(maps, scales=scales, **problem), features
    )


def test_compile_and_export(kernels: str) -> None:
    class Module(torch.nn.Module):
        def forward(self, fine: Tensor, coarse: Tensor, boxes: Tensor, image: Tensor, level: Tensor) -> Tensor:
            return det_ops.multilevel_roi_align(
                [fine, coarse],
                boxes,
                image,
                level,
                output_size=3,
                scales=[0.25, 0.125],
                sampling_ratio=2,
                aligned=False,
            )

    problem = pyramid()
    fine, coarse = problem["features"]
    every = (fine, coarse, problem["boxes"], problem["image_index"], problem["levels"])
    expected = Module()(*every)
    assert torch.equal(torch.export.export(Module(), every).module()(*every), expected)
    torch._dynamo.reset()
    compiled = torch.compile(Module(), fullgraph=True, backend="aot_eager")
    fine.requires_grad_()
    gradients = [torch.autograd.grad(function(*every).square().sum(), fine) for function in (compiled, Module())]
    assert torch.equal(gradients[0][0], gradients[1][0])


@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_reference_reads_nothing_on_the_host(sampling_ratio: int) -> None:
    problem = pyramid()
    # Tensors that have no values, and are not on the CPU.
    features = [feature.to("meta") for feature in problem["features"]]
    boxes, image, level = (problem[n].to("meta") for n in ("boxes", "image_index", "levels"))
    options = problem["scales"], sampling_ratio, True
    out = reference.multilevel_roi_align(features, boxes, image, level, 3, 3, *options, True)
    grads = reference.multilevel_roi_align_backward(out, boxes, image, level, [20, 10], [24, 12], 2, *options)
    assert out.shape == (7, 6, 3, 3)
    assert [grad.shape for grad in grads] == [feature.shape for feature in features]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": []}, "features must be at least one map"),
        ({"features": [torch.zeros(2, 6, 5)] * 2}, r"features\[0\] must be a floating Tensor\[B, C, H, W\]"),
        ({"features": [torch.zeros(2, 6, 5, 5), torch.zeros(2, 7, 5, 5)]}, "features must agree in batch, channels"),
        ({"features": [torch.zeros(0, 6, 5, 5)] * 2}, "features must not be empty where there are boxes"),
        ({"boxes": torch.zeros(7, 5)}, r"boxes must be a floating Tensor\[R, 4\]"),
        ({"image_index": torch.zeros(6, dtype=torch.int64)}, r"image_index must have shape \[7\]"),
        ({"levels": torch.zeros(7)}, "levels must be of dtype int64, got float32"),
        ({"levels": torch.zeros(7, dtype=torch.int64, device="meta")}, "levels must be on the device of features"),
        ({"scales": [1.0]}, "scales must be 2 numbers, one per level"),
        ({"output_size": 0}, "output_size must be positive"),
        ({"memory_format": torch.preserve_format}, "memory_format must be torch.channels_last or"),
    ],
)
def test_errors(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        det_ops.multilevel_roi_align(**pyramid() | change)


def test_rois_error() -> None:
    with pytest.raises(ValueError, match=r"rois must be Tensor\[R, 5\]"):
        det_ops.roi_align(torch.zeros(1, 1, 4, 4), torch.zeros(3, 4), 2)
    with pytest.raises(ValueError, match=r"rois\[1\] must be a floating Tensor\[R1, 4\]"):
        det_ops.roi_align(torch.zeros(1, 1, 4, 4), [torch.zeros(3, 4), torch.zeros(3)], 2)
