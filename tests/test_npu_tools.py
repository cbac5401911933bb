"""What `hatch run npu:check` would report of steps that an NPU does not bear; its worker also tries it on torch_npu."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._ops import OpOverload

from testing import ROOT
from testing.operators import Recorder
from tools.npu.emulation import faults
from tools.npu.judging import changes, folded, judge
from tools.npu.worker import Outcome, differences

VALUES = torch.tensor([1.0, -1.0, 2.0])
WAIT, DOWN, UP = "wait for the stream", "copy device to host", "copy host to device"


class Seen(Recorder):
    """The faults of what runs, as if it had run on an NPU that calls nothing but kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[str] = []

    def look_at(self, operator: OpOverload, args: Any) -> None:
        self.faults += faults(operator.name(), ["aclnnSomething"], operator, args)


@pytest.mark.parametrize(
    ("step", "fault"),
    [
        (lambda: VALUES.nonzero(), "shape depends on values: aten::nonzero"),
        (lambda: VALUES.masked_select(VALUES > 0), "shape depends on values: aten::masked_select"),
        (lambda: VALUES.unique(), "shape depends on values: aten::_unique2"),
        (
            lambda: VALUES.repeat_interleave(torch.tensor([1, 0, 2])),
            "on values: aten::repeat_interleave.Tensor",
        ),
        (lambda: VALUES[VALUES > 0], "indexed by a mask: aten::index.Tensor"),
        (lambda: VALUES.clone().index_put_((VALUES > 0,), VALUES[0]), "indexed by a mask: aten::index_put_"),
    ],
)
def test_operators_whose_shapes_depend_on_values(step: Any, fault: str) -> None:
    with Seen() as seen:
        step()
    assert any(fault in each for each in seen.faults), seen.faults


def test_static_operators_are_no_fault() -> None:
    with Seen() as seen:
        torch.where(VALUES > 0, VALUES[torch.tensor([0, 2, 1])], 0.0).repeat_interleave(2).topk(2)
    assert seen.faults == []


@pytest.mark.parametrize(
    ("calls", "fault"),
    [
        (["aclnnAdd"], []),
        ([DOWN, WAIT], ["the host waits: here"]),
        ([WAIT], ["the host waits: here"]),
        (["wait for the device"], ["the host waits: here"]),
        ([UP, WAIT], ["the host waits: here"]),
        (["aclnnAdd", UP], ["copied from the host: here"]),
    ],
)
def test_waits_and_copies(calls: list[str], fault: list[str]) -> None:
    assert faults("here", calls) == fault


GOOD = {"faults": [], "differences": {"losses": 1e-4, "gradients": 5e-3}, "noise": {"losses": 1e-5, "gradients": 1e-3}}


def test_numbers_are_judged_by_the_noise_of_the_cpu() -> None:
    assert judge(GOOD, "fp32") == []
    (problem,) = judge(GOOD | {"differences": {"losses": 2e-3, "gradients": 5e-3}}, "fp32")
    assert problem.startswith("losses differ from the CPU's by 2.0e-03")
    (problem,) = judge(GOOD | {"differences": {"losses": float("nan")}}, "fp32")
    assert problem.startswith("losses differ")
    assert judge(GOOD | {"faults": ["the host waits: item"]}, "fp32") == ["the host waits: item"]


def outcome(**change: Any) -> Outcome:
    found = {"valid": torch.tensor([True, False]), "labels": torch.tensor([2, 0]), "scores": torch.tensor([0.5, 0.0])}
    parts = {"losses": [torch.tensor([1.0, 2.0])], "gradients": [torch.ones(3)], "weights": [torch.ones(3)]}
    return Outcome(**parts | {"detections": found | change.pop("detections", {})} | change)


def test_differences_of_numbers() -> None:
    assert set(differences(outcome(), outcome()).values()) == {0.0}
    assert differences(outcome(losses=[torch.tensor([1.0, 2.1])]), outcome())["losses"] == pytest.approx(
        0.0447, abs=1e-3
    )
    assert differences(outcome(gradients=[torch.tensor([1.0, float("nan"), 1.0])]), outcome())["gradients"] == float(
        "inf"
    )
    moved: dict[str, Tensor] = {"scores": torch.tensor([0.25, 0.0])}
    assert differences(outcome(detections=moved), outcome())["detections"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("detections", "message"),
    [
        ({"valid": torch.tensor([True, True])}, "another number of detections"),
        ({"labels": torch.tensor([1, 0])}, "other classes"),
    ],
)
def test_other_detections(detections: dict[str, Tensor], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        differences(outcome(detections=detections), outcome())


ADD, POOL = "add(f32[2], f32[2]) -> aclnnAdd", "max_pool2d_with_indices_backward(f32[2], i8[2,16]) -> aclnnPool"


def test_changes_of_the_operators() -> None:
    kept = folded({"training step": [ADD, ADD, POOL], "inference": [ADD]})
    assert kept.splitlines()[:2] == ["# training step: 3 operators", f"   2 {ADD}"]
    assert changes(kept, kept, kernels=True) == []
    other_dtype = folded({"training step": [ADD, ADD.replace("f32", "f64"), POOL], "inference": [ADD]})
    assert changes(kept, other_dtype, kernels=True) == [
        f"-   2 {ADD}",
        f"+   1 {ADD}",
        f"+   1 {ADD.replace('f32', 'f64')}",
    ]
    assert changes(kept, other_dtype, kernels=False)
    once_more = folded({"training step": [ADD, ADD, POOL], "inference": [ADD, ADD]})
    assert changes(kept, once_more, kernels=False) == [f"-# inference    1 {ADD[:19]}", f"+# inference    2 {ADD[:19]}"]
    # Another kind of NPU may compute an operator with another kernel, and has indices of its own.
    other_kernel = folded({
        "training step": [ADD, ADD, POOL.replace("i8[2,16]", "i32[2]").replace("aclnnPool", "aclnnPool2")],
        "inference": [ADD.replace("aclnnAdd", "aclnnAddV3")],
    })  # fmt: skip
    assert changes(kept, other_kernel, kernels=True)
    attention = folded({"inference": ["npu::npu_fusion_attention_v3(f32[2,8], 3, BNSD, None, 0.125) -> aclnnFlash"]})
    other = attention.replace("_v3", "").replace("0.125", "0.125, numels=5")
    assert changes(attention, other, kernels=True)
    assert changes(attention, other, kernels=False) == []
    assert changes(attention, other.replace("[2,8]", "[2,9]"), kernels=False)
    assert changes(kept, other_kernel, kernels=False) == []


def npu_check(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "tools/npu", *arguments],
        env={"PYTHONPATH": str(ROOT)} | environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip


def test_what_the_machine_lacks_is_one_message(tmp_path: Path) -> None:
    ended = npu_check(PATH=str(tmp_path))
    assert ended.returncode == 1
    assert ended.stderr.startswith("npu:check cannot run: g++, nm, objdump must be installed")
    assert ended.stderr.count("\n") == 1
    ended = npu_check("mask_rcnn/huge")
    assert ended.returncode == 2
    assert "there is no network mask_rcnn/huge; there are faster_rcnn/tiny, " in ended.stderr
