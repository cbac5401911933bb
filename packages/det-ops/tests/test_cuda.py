"""The Triton kernels on a GPU: the CPU's results, without waiting for the device, and inside a CUDA graph."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

import det_ops
from det_ops import backends

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
    pytest.mark.skipif(backends.BACKENDS["cuda"].missing is not None, reason="Triton is not installed"),
]

Problem = tuple[Callable[..., tuple[Tensor, ...]], tuple[Tensor, ...]]


def boxes(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    corner = torch.rand(*shape, 2, generator=generator) * 600
    return torch.cat((corner, corner + 8 + torch.rand(*shape, 2, generator=generator) * 200), -1)


def nms_problem() -> Problem:
    generator = torch.Generator().manual_seed(1)
    scores = torch.rand(3, 5000, generator=generator)
    groups = torch.randint(0, 5, (3, 5000), generator=generator)

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        return det_ops.batched_nms(*tensors, 0.6, max_output=1000)

    return run, (boxes(3, 5000), scores, groups)


def match_problem() -> Problem:
    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        return det_ops.match(*tensors, high=0.7, low=0.3, allow_low_quality=True)

    return run, (boxes(60_000), boxes(2, 40), torch.arange(80).reshape(2, 40) % 3 > 0)


def roi_align_problem() -> Problem:
    generator = torch.Generator().manual_seed(2)
    features = tuple(
        torch.randn(2, 256, side, side, generator=generator).contiguous(memory_format=torch.channels_last)
        for side in (200, 100, 50, 25)
    )
    regions = boxes(512)
    image = torch.arange(512) % 2

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        *maps, regions, image, levels, grad = tensors
        maps = [m.detach().requires_grad_() for m in maps]
        scales = [1 / stride for stride in (4, 8, 16, 32)]
        options = {"output_size": 7, "scales": scales, "sampling_ratio": 0, "aligned": True}
        out = det_ops.multilevel_roi_align(maps, regions, image, levels, **options)
        return (out.detach(), *torch.autograd.grad(out, maps, grad))

    grad = torch.randn(512, 256, 7, 7, generator=generator)
    return run, (*features, regions, image, det_ops.fpn_levels(regions), grad)


def top_k_problem() -> Problem:
    """Scores many of which are equal, as in half precision."""
    generator = torch.Generator().manual_seed(5)
    scores = torch.randn(3, 200_000, generator=generator).to(torch.bfloat16)
    return lambda *scores: det_ops.top_k(*scores, 1000), (scores,)


def mask_targets_problem() -> Problem:
    """Stars of 16 points, of which every eighth slot has two; and bitmaps."""
    generator = torch.Generator().manual_seed(4)
    centres = torch.rand(2, 90, 1, 2, generator=generator) * 600
    points = centres + torch.rand(2, 90, 16, 2, generator=generator) * 120
    edges = torch.cat((points, points.roll(1, 2)), -1).flatten(1, 2)
    polygons = torch.arange(0, 91 * 16, 16, dtype=torch.int32).expand(2, -1).contiguous()
    instances = torch.cat((torch.arange(10), torch.arange(11, 91)[::8])).to(torch.int32).expand(2, -1).contiguous()
    bitmaps = (torch.rand(2, 20, 320, 320, generator=generator) < 0.5).to(torch.uint8)
    regions = torch.arange(200) % 2, torch.arange(200) % 21 - 1, boxes(200)

    def run(
        edges: Tensor, polygons: Tensor, instances: Tensor, bitmaps: Tensor, *regions: Tensor
    ) -> tuple[Tensor, ...]:
        cut = det_ops.bitmap_targets(bitmaps, *regions, aligned=True, threshold=None)
        return (
            det_ops.rasterize_polygons(edges, polygons, instances, *regions),
            det_ops.rasterize_polygons(edges, polygons, instances, *regions, legacy=True),
            cut,
        )

    return run, (edges, polygons, instances, bitmaps, *regions)


PROBLEMS = {
    "nms": nms_problem,
    "top k": top_k_problem,
    "match": match_problem,
    "roi align": roi_align_problem,
    "mask targets": mask_targets_problem,
}


@contextmanager
def no_waiting() -> Iterator[None]:
    """Any synchronisation with the device is an error."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def agree(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        if theirs.is_floating_point():
            torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-4, atol=1e-4)
        else:
            assert torch.equal(ours.cpu(), theirs)


@pytest.mark.parametrize("name", PROBLEMS)
def test_gives_the_results_of_the_cpu_without_waiting(name: str) -> None:
    run, tensors = PROBLEMS[name]()
    expected = run(*tensors)
    there = tuple(tensor.cuda() for tensor in tensors)
    run(*there)  # compiles the kernels
    with no_waiting():
        found = run(*there)
    agree(found, expected)


@pytest.mark.parametrize("name", PROBLEMS)
def test_replays_from_a_cuda_graph_with_other_numbers(name: str) -> None:
    run, tensors = PROBLEMS[name]()
    there = tuple(tensor.cuda() for tensor in tensors)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run(*there)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = run(*there)
    other = tuple(tensor.flip(0) if tensor.is_floating_point() and tensor.ndim == 2 else tensor for tensor in tensors)
    for place, tensor in zip(there, other, strict=True):
        place.copy_(tensor)
    graph.replay()
    agree(found, run(*other))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_roi_align(dtype: torch.dtype) -> None:
    run, tensors = roi_align_problem()
    rounded = tuple(t.to(dtype) if t.ndim == 4 else t for t in tensors)
    expected = run(*(t.float() if t.ndim == 4 else t for t in rounded))
    found = run(*(t.cuda() for t in rounded))
    bits = torch.finfo(dtype).eps
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.cpu().float(), theirs, rtol=2 * bits, atol=2 * bits)
