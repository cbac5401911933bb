"""Steps that do what a step must not, to see that the check notices each on this kind of NPU."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import det_ops
from tools.npu.emulation import Emulation, deprecated

_NOTHING = ""
_UNKNOWN = "nobody knows here"  # what it would compute


def unnoticed(emulation: Emulation, soc: str) -> list[str]:
    """What the check lets pass though it must not, or notices though there is nothing; must be empty."""
    npu = torch.device("npu:0")
    ops: Any = torch.ops.npu
    values = torch.arange(6.0).to(npu)
    boxes = torch.tensor([[0.0, 0, 8, 8], [2, 2, 9, 7]])
    boxes_of_npu = boxes.to(npu)
    maps = torch.rand(1, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    maps_of_npu = maps.to(npu)
    rois = torch.cat((torch.zeros(2, 1), boxes), 1).to(npu)
    right = det_ops.roi_align(maps, rois.cpu(), 3, aligned=True, sampling_ratio=2)

    def roi_align(mode: int) -> None:
        found = ops.npu_roi_align(maps_of_npu, rois, 1.0, 3, 3, 2, mode).cpu()
        if not torch.allclose(found, right, atol=1e-5):
            raise ValueError("other numbers than the CPU's")

    steps: list[tuple[str, Callable[[], object], str]] = [
        ("sums", lambda: (values * 2 + values[None]).sum(), _NOTHING),
        ("nonzero", lambda: values.nonzero(), "shape depends on values"),
        ("unique", lambda: values.unique(), "shape depends on values"),
        ("indexing with a mask", lambda: values[values > 2], "indexed by a mask"),
        ("setting by a mask", lambda: values.clone().__setitem__(values > 2, 0.0), "indexed by a mask"),
        ("item", lambda: values[0].item(), "the host waits"),
        ("a wait", lambda: torch.get_device_module(npu).synchronize(), "the host waits"),
        ("a wait between operators", lambda: _between(values), "the host waits"),
        ("a new tensor", lambda: torch.tensor([1.0, 2.0], device=npu), "the host waits"),
        ("a tensor of the host", lambda: boxes.to(npu, non_blocking=True), "the host waits"),  # not pinned
        ("an operator that torch_npu lacks", lambda: F.huber_loss(values, values * 2), "huber_loss"),
        ("a deprecated operator", lambda: ops.npu_iou(boxes_of_npu, boxes_of_npu), _UNKNOWN),
        (
            "an operator without kernels of today's interface",
            lambda: ops.npu_max(values, 0),
            "only support aclnn" if soc.startswith("Ascend950") else _UNKNOWN,
        ),
        ("RoIAlign", lambda: roi_align(2), "the host waits"),  # to compare; the right numbers
        ("RoIAlign of another mode", lambda: roi_align(0), "other numbers"),
    ]
    found = []
    with emulation:
        for name, step, expected in steps:
            seen = _faults(emulation, step)
            if not (any(expected in fault for fault in seen) if expected else not seen):
                found.append(f"{name}: expected {expected or 'nothing'!r}, noticed {seen}")
    if "torch_npu.npu_iou" not in deprecated():
        found.append("a deprecated operator: torch_npu did not say so")
    return found


def _faults(emulation: Emulation, step: Callable[[], object]) -> list[str]:
    """What is noticed of a step."""
    try:
        with emulation.recorded():
            step()
    except Exception as error:
        return [*emulation.faults, f"{type(error).__name__}: {error}"]
    return list(emulation.faults)


def _between(values: Tensor) -> Tensor:
    doubled = values * 2
    torch.get_device_module(values.device).synchronize()
    return doubled + 1
