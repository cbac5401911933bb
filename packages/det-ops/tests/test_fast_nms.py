import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import det_ops
from det_ops.reference.fast_nms import fast_nms as reference
from testing.compiling import assert_compiles_and_exports

THRESHOLDS = st.sampled_from([-0.5, 0.0, 0.3, 1 / 3, 0.5, 0.7, 1.0])


@st.composite
def problems(draw: st.DrawFn) -> dict[str, Tensor]:
    """Few coordinates and scores, so that equal scores, IoUs on the threshold and boxes without extent are common."""
    batch, classes, n = draw(st.integers(1, 3)), draw(st.integers(1, 5)), draw(st.integers(0, 60))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    corner, side = (torch.rand(batch, n, 2, generator=generator) * extent for extent in (12, 9))
    scores = torch.rand(batch, classes, n, generator=generator)
    if draw(st.booleans()):
        corner, side, scores = corner.round(), side.round(), (scores * 8).round() / 8
    if draw(st.booleans()):
        scores = torch.where(torch.rand(scores.shape, generator=generator) < 0.5, scores, -torch.inf)
    if draw(st.booleans()):
        scores = scores.transpose(1, 2).contiguous().transpose(1, 2)
    return {
        "boxes": torch.cat((corner, corner + side), -1),
        "scores": scores,
        "valid": torch.rand(batch, n, generator=generator) < 0.8,
    }


def one_by_one(boxes: Tensor, scores: Tensor, threshold: float, most: int, top_k: int) -> list[tuple[float, int, int]]:
    """The definition, one image, one pair at a time: `(-score, class, index)` of what stays."""
    kept = []
    for label, row in enumerate(scores):
        better: list[int] = []
        for i in row.sort(descending=True, stable=True).indices[:top_k].tolist():
            if row[i] == -torch.inf:
                continue
            overlaps = torchvision.ops.box_iou(boxes[i, None], boxes[better])[0]
            if not any(iou > threshold for iou in overlaps.tolist()):  # NaN: neither has an extent
                kept.append((-row[i].item(), label, i))
            better.append(i)
    return sorted(kept)[:most]


@given(problems(), THRESHOLDS, st.integers(0, 80), st.integers(0, 70), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_equals_the_definition(
    problem: dict[str, Tensor], threshold: float, most: int, top_k: int, cross_class: bool, masked: bool
) -> None:
    boxes, scores, valid = problem.values()
    options = {"max_output": most, "top_k": top_k, "cross_class": cross_class, "valid": valid if masked else None}
    seen = torch.where(valid[:, None], scores, -torch.inf) if masked else scores
    if cross_class:
        winner = torch.arange(scores.shape[1])[:, None] == seen.argmax(1, keepdim=True)
        seen = torch.where(winner, seen, -torch.inf)
    for kernels in ("auto", "reference"):
        with det_ops.kernels(kernels):
            found = det_ops.fast_nms(boxes, scores, threshold, **options)
        slots = min(most, min(top_k, boxes.shape[1]) * (1 if cross_class else scores.shape[1]))
        assert [part.shape for part in found] == [(len(boxes), slots)] * 3
        assert [part.dtype for part in found] == [torch.int64, torch.int64, torch.bool]
        for image, (indices, labels, kept) in enumerate(zip(*found, strict=True)):
            if cross_class:  # one class of boxes, in the order of their index
                best = seen[image].amax(0, keepdim=True)
                expected = one_by_one(boxes[image], best, threshold, most, top_k)
                expected = [(s, int(seen[image, :, i].argmax()), i) for s, _, i in expected]
            else:
                expected = one_by_one(boxes[image], seen[image], threshold, most, top_k)
            assert list(zip(labels[kept].tolist(), indices[kept].tolist(), strict=True)) == [e[1:] for e in expected]
            assert kept.int().diff().le(0).all()  # padding last
            assert not indices[~kept].any()
            assert not labels[~kept].any()


def scene(n: int = 500, classes: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(2, n, 2, generator=generator) * 30
    boxes = torch.cat((corner, corner + 5 + torch.rand(2, n, 2, generator=generator) * 20), -1)
    return boxes, torch.rand(2, classes, n, generator=generator)


def test_equals_the_matrix_form_of_the_paper(kernels: str) -> None:
    """The published code's steps: sort, triangle of the IoU matrix, maximum over columns, best of what is left."""
    boxes, scores = scene()
    indices, labels, kept = det_ops.fast_nms(boxes, scores, 0.5, max_output=100)
    assert kept.all()
    for image in range(2):
        sorted_scores, order = scores[image].sort(1, descending=True)
        order = order[:, :200]
        iou = torch.stack([torchvision.ops.box_iou(*[boxes[image, row]] * 2) for row in order])
        keep = iou.triu(diagonal=1).amax(1) <= 0.5
        values, best = sorted_scores[:, :200][keep].sort(0, descending=True)
        assert torch.equal(indices[image], order[keep][best[:100]])
        assert torch.equal(labels[image], torch.arange(6)[:, None].expand_as(keep)[keep][best[:100]])
        flat = scores[image].flatten().gather(0, labels[image] * 500 + indices[image])
        assert torch.equal(flat, values[:100])


def test_a_suppressed_box_suppresses() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [3, 0, 13, 10], [6, 0, 16, 10]])
    scores = torch.tensor([0.9, 0.8, 0.7])
    assert det_ops.nms(boxes, scores, 0.5).tolist() == [0, 2]
    indices, _, kept = det_ops.fast_nms(boxes, scores[None], 0.5, max_output=3)
    assert indices[kept].tolist() == [0]


def test_nan_and_leading_dimensions(kernels: str) -> None:
    boxes, scores = scene(20, 3)
    scores[0, 1, 4] = scores[1, 2, 7] = float("nan")
    expected = det_ops.fast_nms(boxes, scores.nan_to_num(-torch.inf), 0.2, max_output=60)
    found = det_ops.fast_nms(boxes[:, None], scores[:, None], 0.2, max_output=60)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs[:, None])
    for ours, theirs in zip(det_ops.fast_nms(boxes[1], scores[1], 0.2, max_output=60), expected, strict=True):
        assert torch.equal(ours, theirs[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_precisions(kernels: str, dtype: torch.dtype) -> None:
    boxes, scores = scene(60)
    boxes, scores = boxes.to(dtype), scores.to(dtype)
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    found = det_ops.fast_nms(boxes, scores, 0.4, max_output=40)
    expected = det_ops.fast_nms(boxes.to(exact), scores.to(exact), 0.4, max_output=40)
    assert all(map(torch.equal, found, expected))


def test_non_contiguous() -> None:
    boxes, scores = scene(60)
    strided = boxes.transpose(1, 2).contiguous().transpose(1, 2), scores.repeat_interleave(2, 2)[..., ::2]
    valid = (torch.rand(60, 2) < 0.6).t()
    found = det_ops.fast_nms(*strided, 0.4, max_output=40, valid=valid)
    expected = det_ops.fast_nms(boxes, scores, 0.4, max_output=40, valid=valid.contiguous())
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("optional", [True, False])
def test_opcheck(optional: bool) -> None:
    boxes, scores = scene(30)
    valid = torch.rand(2, 30) < 0.7 if optional else None
    torch.library.opcheck(torch.ops.det_ops.fast_nms.default, (boxes, scores, valid, 0.5, 20, 7))


@pytest.mark.parametrize("cross_class", [True, False])
def test_compile_and_export(kernels: str, cross_class: bool) -> None:
    def function(boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return det_ops.fast_nms(boxes, scores, 0.3, max_output=20, cross_class=cross_class)

    assert_compiles_and_exports(function, scene(30), function(*scene(30)))


def test_reference_reads_nothing_on_the_host() -> None:
    with FakeTensorMode() as mode:
        boxes, scores = (mode.from_tensor(argument) for argument in scene(30))
        found = reference(boxes, scores, None, 0.5, 20, 7)
    assert [part.shape for part in found] == [(2, 7)] * 3


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"boxes": torch.rand(5, 3)}, "boxes"),
        ({"boxes": torch.rand(4)}, "boxes"),
        ({"scores": torch.rand(5)}, "scores"),
        ({"scores": torch.rand(3, 4)}, "scores"),
        ({"scores": torch.ones(3, 5, dtype=torch.int64)}, "scores"),
        ({"scores": torch.rand(3, 5, device="meta")}, "scores"),
        ({"scores": torch.rand(0, 5), "cross_class": True}, "scores"),
        ({"valid": torch.ones(5)}, "valid"),
        ({"valid": torch.ones(6, dtype=torch.bool)}, "valid"),
        ({"iou_threshold": float("nan")}, "iou_threshold"),
        ({"max_output": -1}, "max_output"),
        ({"top_k": -1}, "top_k"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, object], name: str) -> None:
    right = {"boxes": torch.rand(5, 4), "scores": torch.rand(3, 5), "iou_threshold": 0.5, "max_output": 4}
    with pytest.raises(ValueError, match=rf"^{name} must "):
        det_ops.fast_nms(**(right | change))
