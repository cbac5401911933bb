import os
import time

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import det_ops
from det_ops.reference import nms as reference
from testing.compiling import assert_compiles_and_exports
from testing.operators import Recorder

THRESHOLDS = st.sampled_from([-0.5, 0.0, 0.3, 1 / 3, 0.5, 0.7, 0.9, 1.0])


@st.composite
def problems(draw: st.DrawFn, batch: bool = True) -> dict[str, Tensor]:
    """Few coordinates and scores, so that equal scores, IoUs on the threshold and boxes without extent are common."""
    n = draw(st.integers(0, 70))
    lead = (draw(st.integers(1, 3)),) if batch else ()
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    coarse = draw(st.booleans())
    inside_out = draw(st.booleans())

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*lead, *shape, generator=generator)

    corner, side = uniform(n, 2) * 12, uniform(n, 2) * 9 - (2 if inside_out else 0)
    scores = uniform(n) - 0.5
    if coarse:
        corner, side, scores = corner.round(), side.round(), (scores * 8).round() / 8
    values = torch.tensor([0, 1, 5, -(2**62), 2**62]) if draw(st.booleans()) else torch.arange(5)
    return {
        "boxes": torch.cat((corner, corner + side), -1),
        "scores": scores,
        "groups": values[(uniform(n) * 5).long()],
        "valid": uniform(n) < 0.8,
    }


def greedy(
    boxes: Tensor, scores: Tensor, groups: Tensor, valid: Tensor, threshold: float, most: int, offset: float
) -> list[int]:
    """The definition, one image, one pair at a time, in the precision of `boxes`."""
    kept: list[int] = []
    for i in scores.sort(descending=True, stable=True).indices.tolist():
        if not valid[i] or len(kept) == most:
            continue
        for j in kept:
            sides = torch.minimum(boxes[i, 2:], boxes[j, 2:]) - torch.maximum(boxes[i, :2], boxes[j, :2]) + offset
            shared = sides.clamp(min=0).prod()
            areas = [(boxes[k, 2:] - boxes[k, :2] + offset).prod() for k in (i, j)]
            if groups[i] == groups[j] and (shared / (areas[0] + areas[1] - shared)).item() > threshold:
                break
        else:
            kept.append(i)
    return kept


@given(problems(), THRESHOLDS, st.sampled_from([0.0, 1.0]), st.integers(0, 80), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_equals_the_definition(
    problem: dict[str, Tensor], threshold: float, offset: float, most: int, grouped: bool, masked: bool
) -> None:
    boxes, scores, groups, valid = problem.values()
    groups = groups if grouped else torch.zeros_like(groups)
    valid = valid if masked else torch.ones_like(valid)
    options = {"max_output": most, "offset": offset, "valid": valid if masked else None}
    for kernels in ("auto", "reference"):
        with det_ops.kernels(kernels):
            if grouped:
                indices, kept = det_ops.batched_nms(boxes, scores, groups, threshold, **options)
            else:
                indices, kept = det_ops.nms(boxes, scores, threshold, **options)
        assert indices.shape == kept.shape == (len(boxes), min(most, boxes.shape[1]))
        assert not indices[~kept].any()
        for image in range(len(boxes)):
            parts = (part[image] for part in (boxes, scores, groups, valid))
            assert indices[image][kept[image]].tolist() == greedy(*parts, threshold, most, offset)
            assert kept[image].int().diff().le(0).all()  # padding last


@given(problems(), THRESHOLDS, st.integers(1, 80), st.booleans(), st.sampled_from(["rounds", "scan"]))
@settings(max_examples=60, deadline=None)
def test_groups_one_behind_the_other_in_both_forms(
    problem: dict[str, Tensor], threshold: float, most: int, masked: bool, form: str
) -> None:
    boxes, scores, groups, valid = problem.values()
    sizes = groups[0].unique(return_counts=True)[1].tolist() if groups.shape[1] else [0, 0]
    numbers = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)).expand_as(groups)
    options = {"max_output": most, "valid": valid if masked else None}
    expected = det_ops.batched_nms(boxes, scores, numbers, threshold, **options)
    assert all(map(torch.equal, det_ops.batched_nms(boxes, scores, sizes, threshold, **options), expected))
    with pytest.MonkeyPatch.context() as patch, det_ops.kernels("reference"):
        patch.setattr(reference, "OPERATORS_PER_ROUND", 0 if form == "rounds" else 10**9)
        assert all(map(torch.equal, det_ops.batched_nms(boxes, scores, sizes, threshold, **options), expected))
        assert all(map(torch.equal, det_ops.batched_nms(boxes, scores, numbers, threshold, **options), expected))


@given(problems(batch=False), THRESHOLDS, st.sampled_from([torch.float32, torch.float64]))
@settings(max_examples=100, deadline=None)
def test_equals_torchvision(problem: dict[str, Tensor], threshold: float, dtype: torch.dtype) -> None:
    boxes, scores = problem["boxes"].to(dtype), problem["scores"].to(dtype)
    expected = torchvision.ops.nms(boxes, scores, threshold)
    assert torch.equal(det_ops.nms(boxes, scores, threshold), expected)
    with det_ops.kernels("reference"):
        assert torch.equal(det_ops.nms(boxes, scores, threshold), expected)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.7])
def test_many_boxes_equal_torchvision(threshold: float) -> None:
    generator = torch.Generator().manual_seed(0)
    centre = torch.rand(3000, 2, generator=generator) * 600
    side = torch.exp(torch.rand(3000, 2, generator=generator) * 3 + 2)
    boxes = torch.cat((centre - side / 2, centre + side / 2), 1)
    scores = torch.rand(3000, generator=generator)
    scores[::500] = float("nan")
    scores[1::500] = 0.0
    scores[2::500] = -0.0
    assert torch.equal(det_ops.nms(boxes, scores, threshold), torchvision.ops.nms(boxes, scores, threshold))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_extreme_coordinates_are_as_in_the_reference(value: float) -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [1, 0, 10, 10], [0, 0, value, value], [value, 0, value, 9]])
    scores = torch.tensor([0.5, 0.4, 0.3, 0.9, 0.8])
    found = det_ops.nms(boxes, scores, 0.5, max_output=5)
    with det_ops.kernels("reference"):
        expected = det_ops.nms(boxes, scores, 0.5, max_output=5)
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_do_not_matter(threads: int) -> None:
    generator = torch.Generator().manual_seed(1)
    corner = torch.rand(16, 400, 2, generator=generator) * 100
    boxes = torch.cat((corner, corner + 20), -1)
    scores = torch.rand(16, 400, generator=generator)
    one_by_one = [det_ops.nms(b, s, 0.4, max_output=50) for b, s in zip(boxes, scores, strict=True)]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        indices, kept = det_ops.nms(boxes, scores, 0.4, max_output=50)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(indices, torch.stack([i for i, _ in one_by_one]))
    assert torch.equal(kept, torch.stack([v for _, v in one_by_one]))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_threads_work_after_fork() -> None:
    """Loader workers are forked: the pool's threads do not exist in them."""
    boxes, scores = torch.rand(8, 50, 4), torch.rand(8, 50)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        det_ops.nms(boxes, scores, 0.5, max_output=10)
        child = os.fork()
        if child == 0:
            det_ops.nms(boxes, scores, 0.5, max_output=10)
            os._exit(0)
        deadline = time.monotonic() + 300
        while (done := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
            time.sleep(0.01)
        if done == (0, 0):
            os.kill(child, 9)
            os.waitpid(child, 0)
        assert done == (child, 0)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    boxes, scores = (torch.rand(40, 4) * 30).to(dtype), torch.rand(40).to(dtype)
    expected = torchvision.ops.nms(boxes.float(), scores.float(), 0.4)
    assert torch.equal(det_ops.nms(boxes, scores, 0.4), expected)
    with det_ops.kernels("reference"):
        assert torch.equal(det_ops.nms(boxes, scores, 0.4), expected)


def test_non_contiguous() -> None:
    corner = torch.rand(2, 2, 30) * 20
    boxes = torch.cat((corner, corner + 9), 1).transpose(1, 2)
    scores, groups, valid = torch.rand(30, 2).t(), torch.randint(0, 2, (30, 2)).t(), (torch.rand(30, 2) < 0.7).t()
    found = det_ops.batched_nms(boxes, scores, groups, 0.2, max_output=9, valid=valid)
    copies = (part.contiguous() for part in (boxes, scores, groups))
    expected = det_ops.batched_nms(*copies, 0.2, max_output=9, valid=valid.contiguous())
    assert all(map(torch.equal, found, expected))


def test_leading_dimensions() -> None:
    boxes, scores = torch.rand(2, 3, 20, 4), torch.rand(2, 3, 20)
    indices, kept = det_ops.nms(boxes, scores, 0.3, max_output=5)
    flat = det_ops.nms(boxes.flatten(0, 1), scores.flatten(0, 1), 0.3, max_output=5)
    assert torch.equal(indices.flatten(0, 1), flat[0])
    assert torch.equal(kept.flatten(0, 1), flat[1])


ARGUMENTS = (
    torch.rand(2, 30, 4),
    torch.rand(2, 30),
    torch.randint(0, 3, (2, 30)),
    torch.rand(2, 30) < 0.7,
)


@pytest.mark.parametrize("optional", [True, False])
def test_opcheck(optional: bool) -> None:
    boxes, scores, groups, valid = ARGUMENTS
    extra = (groups, valid) if optional else (None, None)
    torch.library.opcheck(torch.ops.det_ops.nms.default, (boxes, scores, *extra, 0.5, 7, 0.0))
    torch.library.opcheck(torch.ops.det_ops.nms.default, (boxes.requires_grad_(), scores, *extra, 0.5, 7, 0.0))
    boxes.requires_grad_(False)


@pytest.mark.parametrize("kernels", ["auto", "reference"])
@pytest.mark.parametrize("most", [1, 20])
def test_compile_and_export(kernels: str, most: int) -> None:
    def function(boxes: Tensor, scores: Tensor, groups: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        return det_ops.batched_nms(boxes, scores, groups, 0.3, max_output=most, valid=valid)

    expected = function(*ARGUMENTS)
    with det_ops.kernels(kernels):
        assert_compiles_and_exports(function, ARGUMENTS, expected)


@pytest.mark.parametrize("most", [1, 20])
def test_reference_reads_nothing_on_the_host(most: int) -> None:
    with FakeTensorMode() as mode:
        boxes, scores, groups, valid = (mode.from_tensor(argument) for argument in ARGUMENTS)
        indices, kept = reference.nms(boxes, scores, groups, valid, 0.5, most, 0.0)
        assert indices.shape == kept.shape == (2, most)
        indices, kept = reference.nms_of_groups(boxes, scores, [12, 18], valid, 0.5, most, 0.0)
        assert indices.shape == kept.shape == (2, most)


@pytest.mark.parametrize(("most", "least"), [(None, 100), (4, 4)])
def test_operators_of_the_reference(most: int | None, least: int) -> None:
    """On an accelerator each is a launch: as few as a group of 500 takes, not as 2,000 boxes, nor two a box."""
    corner = torch.rand(1, 2000, 2) * 300
    boxes, scores = torch.cat((corner, corner + 40), -1), torch.rand(1, 2000)
    with Recorder() as recorder, det_ops.kernels("reference"), torch.autocast("cpu", dtype=torch.bfloat16):
        _, kept = det_ops.batched_nms(boxes, scores, [500] * 4, 0.5, max_output=most)
    assert kept.sum() >= least
    assert sum(not call.operator.is_view for call in recorder.calls) < (600 if most is None else 150)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.1, 1 / 3, 1e-3, -0.3, 1.0, 0.0])
def test_float32_floor(threshold: float) -> None:
    floor = reference.float32_floor(threshold)
    nearest = torch.tensor(floor)
    assert nearest.item() == floor <= threshold
    assert torch.nextafter(nearest, torch.tensor(float("inf"))).item() > threshold


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"boxes": torch.rand(5, 3)}, "boxes"),
        ({"boxes": torch.ones(5, 4, dtype=torch.int64)}, "boxes"),
        ({"boxes": torch.rand(4)}, "boxes"),
        ({"scores": torch.rand(4)}, "scores"),
        ({"scores": torch.ones(5, dtype=torch.int64)}, "scores"),
        ({"scores": torch.rand(5, device="meta")}, "scores"),
        ({"groups": torch.rand(5)}, "groups"),
        ({"groups": torch.ones(4, dtype=torch.int64)}, "groups"),
        ({"groups": [2, 2]}, "groups"),
        ({"groups": [6, -1]}, "groups"),
        ({"valid": torch.ones(5)}, "valid"),
        ({"valid": torch.ones(6, dtype=torch.bool)}, "valid"),
        ({"iou_threshold": float("nan")}, "iou_threshold"),
        ({"max_output": -1}, "max_output"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, object], name: str) -> None:
    right = {
        "boxes": torch.rand(5, 4),
        "scores": torch.rand(5),
        "groups": torch.zeros(5, dtype=torch.int64),
        "iou_threshold": 0.5,
    }
    with pytest.raises(ValueError, match=rf"^{name} must "):
        det_ops.batched_nms(**(right | change))
