"""NMS on an NPU by other kernels than the reference, where they are asked for."""

import types
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import det_ops
from det_ops.backends.npu import nms as npu

GENERATOR = torch.Generator().manual_seed(0)
CORNER = torch.rand(2, 3, 40, 2, generator=GENERATOR) * 100
BOXES = torch.cat((CORNER, CORNER + 30), -1)
SCORES = torch.rand(2, 3, 40, generator=GENERATOR) - 0.5
VALID = torch.rand(2, 3, 40, generator=GENERATOR) < 0.8


def npu_nms_v4(
    boxes: Tensor, scores: Tensor, most: int, threshold: Tensor, least: Tensor, pad: bool
) -> tuple[Tensor, Tensor]:
    """torch_npu's operator, whose result beyond its length is whatever was in memory."""
    assert pad
    assert threshold.shape == least.shape == ()
    found, kept = det_ops.nms(boxes, scores, float(threshold), max_output=most, valid=scores > least)
    return torch.where(kept, found, 12345).int(), kept.sum().int()


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """As if the CPU were an NPU with torch_npu; the calls."""
    calls: list[str] = []

    def noted(*arguments):
        calls.append("npu_nms_v4")
        return npu_nms_v4(*arguments)

    monkeypatch.setattr(npu, "_operators", lambda: types.SimpleNamespace(npu_nms_v4=noted))
    monkeypatch.setattr(npu, "form", lambda boxes: "vendor" if boxes.ndim > 2 else None)
    return calls


def test_torch_npus_operator_is_called_for_each_image_and_level(vendor: list[str]) -> None:
    arguments = (BOXES.flatten(1, 2), SCORES.flatten(1, 2), [40, 80], 0.4)
    options = {"max_output": 50, "valid": VALID.flatten(1, 2)}
    found = det_ops.batched_nms(*arguments, **options)
    assert len(vendor) == 4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(npu, "form", lambda _: None)
        expected = det_ops.batched_nms(*arguments, **options)
    assert expected[1].any()
    assert all(map(torch.equal, found, expected))


def test_leading_dimensions_and_no_image(vendor: list[str]) -> None:
    found = det_ops.nms(BOXES, SCORES, 0.4, max_output=7)
    assert len(vendor) == 6
    for image in range(2):
        for level in range(3):
            alone = det_ops.nms(BOXES[image, level], SCORES[image, level], 0.4, max_output=7)
            assert all(map(torch.equal, (part[image, level] for part in found), alone))
    assert det_ops.nms(BOXES[:0], SCORES[:0], 0.4, max_output=7)[0].shape == (0, 3, 7)


def test_what_it_cannot_is_left_to_the_others(vendor: list[str]) -> None:
    groups = torch.zeros_like(SCORES, dtype=torch.int64)
    det_ops.batched_nms(BOXES, SCORES, groups, 0.4, max_output=7)
    det_ops.nms(BOXES, SCORES, 0.4, max_output=7, offset=1.0)
    assert vendor == []


def test_torchvisions_operator_where_it_has_a_kernel(vendor: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchvision")
    assert not npu._has_torchvision()
    expected = det_ops.nms(BOXES, SCORES, 0.4, max_output=30, valid=VALID)
    monkeypatch.setattr(npu, "_has_torchvision", lambda: True)
    vendor.clear()
    found = det_ops.nms(BOXES, SCORES, 0.4, max_output=30, valid=VALID)
    assert vendor == []
    assert all(map(torch.equal, found, expected))
