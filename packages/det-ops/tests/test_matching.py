import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.models.detection._utils import Matcher

import det_ops
from det_ops.reference.matching import match as reference
from testing.compiling import assert_compiles_and_exports


def boxes(generator: torch.Generator, *shape: int, coarse: bool, extent: float = 20.0) -> Tensor:
    corner = torch.rand(*shape, 2, generator=generator) * extent
    side = torch.rand(*shape, 2, generator=generator) * 9 + 0.5
    if coarse:
        corner, side = corner.round(), side.round().clamp(min=1)
    return torch.cat((corner, corner + side), -1)


@st.composite
def problems(draw: st.DrawFn) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    batch, n, m = draw(st.integers(1, 3)), draw(st.integers(1, 600)), draw(st.integers(1, 40))
    coarse = draw(st.booleans())
    extent = draw(st.sampled_from([6.0, 30.0, 300.0]))  # from crowded to truths that meet no anchor
    shape = (n,) if draw(st.booleans()) else (batch, n)
    return {
        "anchors": boxes(generator, *shape, coarse=coarse, extent=extent),
        "truth": boxes(generator, batch, m, coarse=coarse, extent=extent),
        "valid": torch.rand(batch, m, generator=generator) < draw(st.sampled_from([0.1, 0.7, 1.1])),
    }


THRESHOLDS = st.sampled_from([(0.7, 0.3), (0.5, 0.5), (0.5, 0.4), (1 / 3, 0.0)])
LOW_QUALITY = st.fixed_dictionaries(
    {
        "allow_low_quality": st.booleans(),
        "low_quality_iou": st.sampled_from([0.0, 0.1, 0.3, 0.6]),
        "reassign_low_quality": st.booleans(),
    }
)


@given(problems(), THRESHOLDS, st.booleans())
@settings(max_examples=100, deadline=None)
def test_equals_torchvision_on_the_valid_truths(
    problem: dict[str, Tensor], thresholds: tuple[float, float], low_quality: bool
) -> None:
    anchors, truth, valid = problem.values()
    high, low = thresholds
    options = {"high": high, "low": low, "allow_low_quality": low_quality}
    index, label = det_ops.match(anchors, truth, valid, **options)
    matcher = Matcher(high, low, allow_low_quality_matches=low_quality)
    for image, used in enumerate(valid):
        own = anchors if anchors.ndim == 2 else anchors[image]
        slots = used.nonzero()[:, 0]
        if len(slots) == 0:
            assert not index[image].any()
            assert not label[image].any()
            continue
        iou = torchvision.ops.box_iou(truth[image, slots], own)
        expected = matcher(iou)
        assert torch.equal(label[image].long(), torch.where(expected >= 0, 1, expected + 1))
        assert torch.equal(index[image], slots[iou.max(0).indices])


def max_iou_assigner(iou: Tensor, high: float, low: float, least: float) -> tuple[Tensor, Tensor]:
    """mmdetection's rules for `iou [M, N]`, truth by truth: index and label."""
    best, index = iou.max(0)
    label = torch.where(best >= high, 1, torch.where(best < low, 0, -1))
    for slot, row in enumerate(iou):
        if row.max() >= least:
            index[row == row.max()], label[row == row.max()] = slot, 1
    return index, label


@pytest.mark.parametrize("choice", ["auto", "reference"])
@given(problem=problems(), thresholds=THRESHOLDS, least=st.sampled_from([0.0, 0.1, 0.3, 0.6]))
@settings(max_examples=50, deadline=None)
def test_reassigns_as_mmdetection(
    choice: str, problem: dict[str, Tensor], thresholds: tuple[float, float], least: float
) -> None:
    anchors, truth, valid = problem.values()
    high, low = thresholds
    rules = {"allow_low_quality": True, "low_quality_iou": least, "reassign_low_quality": True}
    with det_ops.kernels(choice):
        found = det_ops.match(anchors, truth, valid, high=high, low=low, **rules)
    for image, used in enumerate(valid):
        slots = used.nonzero()[:, 0]
        if len(slots):
            iou = torchvision.ops.box_iou(truth[image, slots], anchors if anchors.ndim == 2 else anchors[image])
            index, label = max_iou_assigner(iou, high, low, least)
            assert torch.equal(found[0][image], slots[index])
            assert torch.equal(found[1][image].long(), label)


@given(problems(), THRESHOLDS, LOW_QUALITY, st.sampled_from([0.0, 1.0]), st.booleans())
@settings(max_examples=100, deadline=None)
def test_equals_the_reference(
    problem: dict[str, Tensor], thresholds: tuple[float, float], low_quality: dict, offset: float, double: bool
) -> None:
    anchors, truth, valid = problem.values()
    if double:
        anchors, truth = anchors.double(), truth.double()
    options = {"high": thresholds[0], "low": thresholds[1], "offset": offset} | low_quality
    found = det_ops.match(anchors, truth, valid, **options)
    with det_ops.kernels("reference"):
        expected = det_ops.match(anchors, truth, valid, **options)
    assert all(map(torch.equal, found, expected))
    assert [part.dtype for part in found] == [torch.int64, torch.int8]


@pytest.mark.parametrize("kernels", ["auto", "reference"])
def test_a_truth_that_meets_no_anchor_makes_all_positive(kernels: str) -> None:
    """What the peers do: its maximum, 0, is the IoU of every anchor with it."""
    anchors, truth = torch.tensor([[0.0, 0, 4, 4], [9, 9, 12, 12]]), torch.tensor([[[50.0, 50, 60, 60]]])
    with det_ops.kernels(kernels):
        index, label = det_ops.match(
            anchors, truth, torch.ones(1, 1, dtype=torch.bool), high=0.7, low=0.3, allow_low_quality=True
        )
    assert index.tolist() == [[0, 0]]
    assert label.tolist() == [[1, 1]]


@pytest.mark.parametrize("kernels", ["auto", "reference"])
@pytest.mark.parametrize(("n", "m"), [(0, 3), (5, 0), (0, 0)])
def test_empty(kernels: str, n: int, m: int) -> None:
    with det_ops.kernels(kernels):
        index, label = det_ops.match(
            torch.rand(n, 4),
            torch.rand(2, m, 4),
            torch.ones(2, m, dtype=torch.bool),
            high=0.7,
            low=0.3,
            allow_low_quality=True,
        )
    assert index.shape == label.shape == (2, n)
    assert not index.any()
    assert not label.any()


@pytest.mark.parametrize("kernels", ["auto", "reference"])
def test_boxes_without_extent_match_nothing(kernels: str) -> None:
    """Padding of proposals and of truth is a box of zeros."""
    anchors, truth = torch.zeros(1, 4), torch.zeros(1, 2, 4)
    truth[0, 1] = torch.tensor([0, 0, 5, 5])
    with det_ops.kernels(kernels):
        index, label = det_ops.match(
            anchors, truth, torch.ones(1, 2, dtype=torch.bool), high=0.5, low=0.5, allow_low_quality=False
        )
    assert index.item() == 0
    assert label.item() == 0


def test_threads_do_not_matter() -> None:
    generator = torch.Generator().manual_seed(0)
    anchors, truth = boxes(generator, 20_000, coarse=True, extent=200), boxes(generator, 3, 30, coarse=True, extent=200)
    valid = torch.rand(3, 30, generator=generator) < 0.8
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(det_ops.match(anchors, truth, valid, high=0.6, low=0.3, allow_low_quality=True))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(map(torch.equal, other, results[0]))


def test_half_precision_and_strides() -> None:
    generator = torch.Generator().manual_seed(0)
    anchors, truth = boxes(generator, 100, coarse=True).half(), boxes(generator, 2, 9, coarse=True).half()
    valid = torch.rand(9, 2, generator=generator) < 0.8
    options = {"high": 0.6, "low": 0.3, "allow_low_quality": True}
    found = det_ops.match(anchors.t().contiguous().t(), truth, valid.t(), **options)
    expected = det_ops.match(anchors.float(), truth.float(), valid.t().contiguous(), **options)
    assert all(map(torch.equal, found, expected))


def arguments() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    valid = torch.rand(2, 20, generator=generator) < 0.8
    return boxes(generator, 50, coarse=False), boxes(generator, 2, 20, coarse=False), valid


def test_opcheck() -> None:
    anchors, truth, valid = arguments()
    torch.library.opcheck(torch.ops.det_ops.match.default, (anchors, truth, valid, 0.7, 0.3, True, 0.3, True, 0.0))
    anchors.requires_grad_()
    torch.library.opcheck(torch.ops.det_ops.match.default, (anchors, truth, valid, 0.5, 0.5, False, 0.0, False, 1.0))


@pytest.mark.parametrize("kernels", ["auto", "reference"])
def test_compile_and_export(kernels: str) -> None:
    def function(anchors: Tensor, truth: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        return det_ops.match(anchors, truth, valid, high=0.7, low=0.3, allow_low_quality=True)

    expected = function(*arguments())
    with det_ops.kernels(kernels):
        assert_compiles_and_exports(function, arguments(), expected)


def test_reference_reads_nothing_on_the_host() -> None:
    with FakeTensorMode() as mode:
        anchors, truth, valid = (mode.from_tensor(argument) for argument in arguments())
        index, label = reference(anchors, truth, valid, 0.7, 0.3, True, 0.3, True, 0.0)
    assert index.shape == label.shape == (2, 50)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"anchors": torch.rand(3, 50, 4)}, "anchors"),
        ({"anchors": torch.rand(50, 5)}, "anchors"),
        ({"truth": torch.rand(20, 4)}, "truth"),
        ({"truth": torch.rand(2, 20, 4, device="meta")}, "truth"),
        ({"valid": torch.ones(2, 20)}, "valid"),
        ({"valid": torch.ones(2, 19, dtype=torch.bool)}, "valid"),
        ({"low": 0.8}, "low"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, object], name: str) -> None:
    anchors, truth, valid = arguments()
    right = {"anchors": anchors, "truth": truth, "valid": valid, "high": 0.7, "low": 0.3, "allow_low_quality": True}
    with pytest.raises(ValueError, match=rf"^{name} must "):
        det_ops.match(**(right | change))
