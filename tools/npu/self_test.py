"""Steps that do what a step must not, to see that the check notices each on this kind of NPU."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import det_ops
from det_engine.capture import DeviceGraph, graph_pool
from tools.npu.emulation import Emulation, deprecated

_NOTHING = ""
_UNKNOWN = "nobody knows here"  # what it would compute


def unnoticed(emulation: Emulation, soc: str) -> list[str]:
    """What the check lets pass though it must not, or notices though there is nothing; must be empty."""
    npu = torch.device("npu:0")
    ops: Any = torch.ops.npu
    is_950 = soc.startswith("Ascend950")
    random = torch.Generator().manual_seed(0)
    values = torch.arange(6.0).to(npu)
    corner = torch.rand(2, 30, 2, generator=random) * 50
    boxes, scores = torch.cat((corner, corner + 20), -1), torch.rand(2, 30, generator=random)
    kept = det_ops.batched_nms(boxes, scores, [10, 20], 0.4, max_output=9)[0]
    boxes_of_npu, scores_of_npu = boxes.to(npu), scores.to(npu)
    maps = torch.rand(1, 1, 72, 72, generator=random)
    aligned = det_ops.roi_align(maps, [boxes[0]], 3, aligned=True, sampling_ratio=2)
    maps_of_npu, rois = maps.to(npu), torch.cat((torch.zeros(30, 1), boxes[0]), 1).to(npu)

    def roi_align(mode: int) -> Tensor:
        return ops.npu_roi_align(maps_of_npu, rois, 1.0, 3, 3, 2, mode)

    def nms(choice: str) -> Tensor:
        with det_ops.kernels(choice):
            return det_ops.batched_nms(boxes_of_npu, scores_of_npu, [10, 20], 0.4, max_output=9)[0]

    def captured(function: Callable[[], object]) -> list[str]:
        with emulation:
            DeviceGraph(npu, graph_pool(npu)).record(function)
        return emulation.captured

    steps: list[tuple[str, Callable[[], object], str, Tensor | None]] = [
        ("sums", lambda: (values * 2 + values[None]).sum(), _NOTHING, None),
        ("nonzero", lambda: values.nonzero(), "shape depends on values", None),
        ("unique", lambda: values.unique(), "shape depends on values", None),
        ("indexing with a mask", lambda: values[values > 2], "indexed by a mask", None),
        ("setting by a mask", lambda: values.clone().__setitem__(values > 2, 0.0), "indexed by a mask", None),
        ("item", lambda: values[0].item(), "the host waits", None),
        ("a wait", lambda: torch.get_device_module(npu).synchronize(), "the host waits", None),
        ("a wait between operators", lambda: _between(values), "the host waits", None),
        ("a new tensor", lambda: torch.tensor([1.0, 2.0], device=npu), "the host waits", None),
        ("memory of the host that is not pinned", lambda: boxes.to(npu, non_blocking=True), "the host waits", None),
        ("an operator that torch_npu lacks", lambda: F.huber_loss(values, values * 2), "huber_loss", None),
        ("a deprecated operator", lambda: ops.npu_iou(boxes_of_npu[0], boxes_of_npu[0]), _UNKNOWN, None),
        (
            "an operator without kernels of today's interface",
            lambda: ops.npu_max(values, 0),
            "only support aclnn" if is_950 else _UNKNOWN,
            None,
        ),
        ("RoIAlign", lambda: roi_align(2), _NOTHING, aligned),
        ("RoIAlign of another mode", lambda: roi_align(0), "other numbers", aligned),
        ("NMS", lambda: nms("auto"), _NOTHING, kept),
        ("NMS on the host", lambda: nms("host"), "the host waits", kept),
        ("NMS by npu_nms_v4", lambda: nms("vendor"), "only support aclnn" if is_950 else _NOTHING, kept),
    ]
    found = []
    for name, function, expected in (
        ("a graph", lambda: values * 2, _NOTHING),
        ("a graph in which the host reads", lambda: values[0].item(), "in a graph, the host waits"),
        ("a graph with a mask", lambda: values[values > 2], "in a graph, indexed by a mask"),
    ):
        emulation.forget_graphs()
        seen = captured(function)
        if not (any(expected in fault for fault in seen) if expected else not seen):
            found.append(f"{name}: expected {expected or 'nothing'!r}, noticed {seen}")
    with emulation:
        for name, step, expected, right in steps:
            seen = _faults(emulation, step, right)
            if not (any(expected in fault for fault in seen) if expected else not seen):
                found.append(f"{name}: expected {expected or 'nothing'!r}, noticed {seen}")
    if "torch_npu.npu_iou" not in deprecated():
        found.append("a deprecated operator: torch_npu did not say so")
    return found


def _faults(emulation: Emulation, step: Callable[[], object], right: Tensor | None) -> list[str]:
    """What is noticed of a step whose result should be `right`."""
    try:
        with emulation.recorded():
            result = step()
    except Exception as error:
        return [*emulation.faults, f"{type(error).__name__}: {error}"]
    found = list(emulation.faults)
    if right is not None and not (isinstance(result, Tensor) and torch.allclose(result.cpu(), right, atol=1e-5)):
        found.append("other numbers than the CPU's")
    return found


def _between(values: Tensor) -> Tensor:
    doubled = values * 2
    torch.get_device_module(values.device).synchronize()
    return doubled + 1
