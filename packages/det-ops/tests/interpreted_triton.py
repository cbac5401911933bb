"""The Triton kernels against the kernels of the CPU, run by Triton's interpreter; `test_triton.py` starts this file.

The interpreter needs milliseconds for what a GPU does in nanoseconds: problems are tiny.
"""

import math

import pytest
import torch
from torch import Tensor

import det_ops
from det_ops import backends, matching


def pyramid(channels: int, dtype: torch.dtype = torch.float32) -> dict:
    """Regions inside, across the border, outside, reversed, without extent, not finite, too large, and padding."""
    generator = torch.Generator().manual_seed(channels)
    boxes = [
        [3.0, 2.0, 47.3, 61.0],
        [-9.0, 31.0, 22.5, 99.0],
        [8.0, 8.0, 13.0, 14.0],
        [-300.0, -2.0, 300.0, 30.0],
        [0.0, 0.0, 40.0, 40.0],
        [200.0, 200.0, 220.0, 220.0],
        [30.0, 40.0, 10.0, 20.0],
        [12.0, 12.0, 12.0, 12.0],
        [math.nan, 0.0, 9.0, 9.0],
        [-math.inf, 0.0, math.inf, 9.0],
    ]
    return {
        "features": [
            torch.randn(2, channels, *size, generator=generator).to(dtype) for size in ((17, 13), (9, 7), (1, 1))
        ],
        "boxes": torch.tensor(boxes),
        "image_index": torch.tensor([0, 1, 0, 1, 1, 0, 1, 0, 0, 1]),
        "levels": torch.tensor([0, 0, 0, 1, -1, 1, 1, 0, 0, 2]),
        "scales": [0.25, 0.125, 0.0625],
        "output_size": (2, 1),
    }


def align(choice: str, problem: dict) -> tuple[Tensor, list[Tensor]]:
    features = [feature.clone().requires_grad_() for feature in problem["features"]]
    with det_ops.kernels(choice):
        out = det_ops.multilevel_roi_align(**problem | {"features": features})
        weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(0)).to(out.dtype)
        return out, list(torch.autograd.grad(out, features, weight))


@pytest.mark.parametrize("sampling_ratio", [0, 1, 2])
@pytest.mark.parametrize("aligned", [True, False])
def test_roi_align(sampling_ratio: int, aligned: bool) -> None:
    # Each layout with every number of samples.
    memory_format = torch.channels_last if aligned else torch.contiguous_format
    options = {"sampling_ratio": sampling_ratio, "aligned": aligned, "memory_format": memory_format}
    problem = pyramid(5) | options
    (found, gradients), (expected, wanted) = align("triton", problem), align("auto", problem)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert found.stride() == expected.stride()
    for ours, theirs in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        assert ours.stride() == theirs.stride()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_roi_align_half_precision_is_accumulated_in_float32(dtype: torch.dtype) -> None:
    problem = pyramid(3, dtype) | {"sampling_ratio": 0, "aligned": True}
    (found, gradients), (expected, wanted) = align("triton", problem), align("auto", problem)
    bits = torch.finfo(dtype).eps
    torch.testing.assert_close(found, expected, rtol=bits, atol=1e-6)
    for ours, theirs in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=bits, atol=1e-6)


def test_roi_align_blocks_of_channels() -> None:
    problem = pyramid(300) | {"sampling_ratio": 0, "aligned": True, "output_size": 1}
    problem = {k: v[:2] if isinstance(v, Tensor) else v for k, v in problem.items()}
    (found, gradients), (expected, wanted) = align("triton", problem), align("auto", problem)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradients, wanted, rtol=1e-5, atol=1e-5)


def test_roi_align_of_nothing() -> None:
    problem = pyramid(3) | {"sampling_ratio": 0, "aligned": True}
    problem = {k: v[:0] if isinstance(v, Tensor) else v for k, v in problem.items()}
    out, gradients = align("triton", problem)
    assert out.shape == (0, 3, 2, 1)
    assert not any(gradient.any() for gradient in gradients)


def both(function, *arguments: Tensor | float | None, **options: object) -> tuple[tuple[Tensor, Tensor], ...]:
    """Results of Triton's kernels and of the CPU's."""
    results = []
    for choice in ("triton", "auto"):
        with det_ops.kernels(choice):
            results.append(function(*arguments, **options))
    return tuple(results)


def candidates(batch: int, n: int, coarse: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Boxes (some without extent), scores (many equal, one NaN), groups and flags."""
    generator = torch.Generator().manual_seed(n)
    corner = torch.rand(batch, n, 2, generator=generator) * 12
    side = torch.rand(batch, n, 2, generator=generator) * 9
    scores = torch.rand(batch, n, generator=generator) - 0.5
    if coarse:
        corner, side, scores = corner.round(), side.round(), (scores * 8).round() / 8
    scores[:, n // 2] = math.nan
    groups = torch.tensor([0, 5, -(2**62), 2**62])[torch.randint(0, 4, (batch, n), generator=generator)]
    return torch.cat((corner, corner + side), -1), scores, groups, torch.rand(batch, n, generator=generator) < 0.8


@pytest.mark.parametrize("n", [1, 64, 130])
@pytest.mark.parametrize("coarse", [True, False])
@pytest.mark.parametrize(("threshold", "offset", "most"), [(0.5, 0.0, None), (1 / 3, 1.0, 9)])
def test_nms(n: int, coarse: bool, threshold: float, offset: float, most: int | None) -> None:
    boxes, scores, groups, valid = candidates(1 if n > 100 else 2, n, coarse)
    found, expected = both(det_ops.nms, boxes, scores, threshold, max_output=n if most is None else most, offset=offset)
    assert all(map(torch.equal, found, expected))
    options = {"max_output": n if most is None else most, "offset": offset, "valid": valid}
    found, expected = both(det_ops.batched_nms, boxes, scores, groups, threshold, **options)
    assert all(map(torch.equal, found, expected))
    assert [part.dtype for part in found] == [torch.int64, torch.bool]


def test_nms_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """More images than the matrix of bits has room for."""
    from det_ops.backends.triton import nms as kernels

    boxes, scores, groups, valid = candidates(3, 70, False)
    monkeypatch.setattr(kernels, "_MATRIX_BYTES", 2 * 70 * 16 + 1)
    found, expected = both(det_ops.batched_nms, boxes, scores, groups, 0.5, max_output=20, valid=valid)
    assert all(map(torch.equal, found, expected))


def test_nms_of_one_set_of_half_precision_without_contiguity() -> None:
    boxes, scores, _, valid = candidates(1, 40, True)
    boxes, scores = boxes[0].bfloat16().mT.contiguous().mT, scores[0].bfloat16()
    found, expected = both(det_ops.nms, boxes, scores, 0.4)
    assert torch.equal(found, expected)
    found, expected = both(det_ops.nms, boxes, scores, 0.4, valid=~valid[0], max_output=5)
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize(("batch", "n", "most"), [(2, 0, 5), (0, 4, 3), (2, 4, 0)])
def test_nms_of_nothing(batch: int, n: int, most: int) -> None:
    found, expected = both(det_ops.nms, torch.rand(batch, n, 4), torch.rand(batch, n), 0.5, max_output=most)
    assert all(map(torch.equal, found, expected))


def test_nms_of_extreme_coordinates() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [1, 0, 10, 10], [0, 0, 1, 1], [1, 0, 1, 9]]).repeat(4, 1, 1)
    for image, value in enumerate((math.nan, math.inf, -math.inf, 1e30)):
        boxes[image, 3, 2:] = value
        boxes[image, 4, ::2] = value
    scores = torch.tensor([0.5, 0.4, 0.3, 0.9, 0.8]).repeat(4, 1)
    found, expected = both(det_ops.nms, boxes, scores, 0.5, max_output=5)
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize(("shared", "coarse"), [(True, True), (False, False)])
@pytest.mark.parametrize(
    "low_quality",
    [
        {"allow_low_quality": False},
        {"allow_low_quality": True},
        {"allow_low_quality": True, "low_quality_iou": 0.3, "reassign_low_quality": True},
        {"allow_low_quality": True, "reassign_low_quality": True},
    ],
)
@pytest.mark.parametrize(("extent", "offset"), [(12.0, 0.0), (12.0, 1.0), (400.0, 0.0)])
def test_match(shared: bool, coarse: bool, low_quality: dict, extent: float, offset: float) -> None:
    generator = torch.Generator().manual_seed(7)

    def boxes(*shape: int) -> Tensor:
        corner = torch.rand(*shape, 2, generator=generator) * extent
        side = torch.rand(*shape, 2, generator=generator) * 9 + 0.5
        return torch.cat((corner, corner + side), -1).round() if coarse else torch.cat((corner, corner + side), -1)

    anchors, truth = boxes(700) if shared else boxes(3, 700), boxes(3, 6)
    valid = torch.rand(3, 6, generator=generator) < 0.7
    valid[2] = False
    for high, low in ((0.7, 0.3), (0.5, 0.5), (1 / 3, 0.0)):
        options = {"high": high, "low": low, "offset": offset} | low_quality
        found, expected = both(det_ops.match, anchors, truth, valid, **options)
        assert all(map(torch.equal, found, expected))
        assert [part.dtype for part in found] == [torch.int64, torch.int8]


@pytest.mark.parametrize(("n", "m"), [(0, 3), (5, 0), (0, 0)])
def test_match_of_nothing(n: int, m: int) -> None:
    valid = torch.ones(2, m, dtype=torch.bool)
    options = {"high": 0.7, "low": 0.3, "allow_low_quality": True}
    found, expected = both(det_ops.match, torch.rand(n, 4), torch.rand(2, m, 4), valid, **options)
    assert all(map(torch.equal, found, expected))


def regions() -> dict:
    """Of two images with three slots: empty ones, padding, one that is tiny, and one that is not a number."""
    boxes = [[2.0, 1.0, 9.5, 8.0], [0.0, 0.0, 7.0, 7.0], [5.0, 6.0, 5.02, 3.0], [1.0, 1.0, 40.0, math.nan]]
    return {
        "image_index": torch.tensor([0, 0, 1, 1, 0, 1, 0]),
        "instance": torch.tensor([2, 1, 0, 1, -1, 1, 2]),
        "boxes": torch.tensor(boxes)[[0, 1, 2, 0, 0, 1, 3]],
    }


def polygons(coordinates: Tensor) -> dict:
    """None, one or two polygons in a slot, of up to 20 edges; one coordinate is not a number."""
    random = torch.Generator().manual_seed(len(coordinates))
    edges = coordinates[torch.randint(0, len(coordinates), (2, 26, 4), generator=random)]
    edges[1, 5, 0] = math.nan
    return {
        "mask_edges": edges,
        "mask_polygons": torch.tensor([[0, 4, 4, 24, 24], [0, 3, 20, 20, 20]], dtype=torch.int32),
        "mask_instances": torch.tensor([[0, 0, 1, 3], [0, 1, 2, 2]], dtype=torch.int32),
        **regions(),
    }


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(("size", "step"), [(7, 0.5), (28, 0.1), (70, 0.2)])
def test_polygons(size: int, step: float, legacy: bool) -> None:
    """Coordinates on a grid of a tenth make ties of COCO's rounding common."""
    problem = polygons(torch.arange(-30 * step, 12, step))
    found, expected = both(det_ops.rasterize_polygons, **problem, size=size, legacy=legacy)
    assert torch.equal(found, expected)
    assert expected[[0, 3, 5]].any()


def test_polygons_of_nothing() -> None:
    problem = polygons(torch.arange(9.0))
    for empty in ({"mask_edges": problem["mask_edges"][:, :0]}, {"mask_polygons": problem["mask_polygons"][:, :1]}):
        assert not any(mask.any() for mask in both(det_ops.rasterize_polygons, **problem | empty, size=5))
    none = {name: problem[name][:0] for name in ("image_index", "instance", "boxes")}
    assert both(det_ops.rasterize_polygons, **problem | none, size=5)[0].shape == (0, 5, 5)


@pytest.mark.parametrize("aligned", [False, True])
def test_bitmaps(aligned: bool) -> None:
    bitmaps = (torch.rand(2, 3, 8, 9, generator=torch.Generator().manual_seed(3)) < 0.5).to(torch.uint8)
    problem = {name: value[[0, 4, 6]] for name, value in regions().items()} | {"size": 2, "aligned": aligned}
    found, expected = both(det_ops.bitmap_targets, bitmaps, **problem, threshold=None)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert expected[0].all()
    assert not expected[1:].any()


def test_float64_goes_to_the_reference() -> None:
    with det_ops.kernels("triton"):
        assert matching._match.backend(torch.zeros(2, 1)) is backends.BACKENDS["cuda"]
        assert matching._match.backend((torch.zeros(1), torch.zeros(1, dtype=torch.float64))) is None
