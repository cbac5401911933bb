"""The check of a training step for NPUs; in processes of its own, since it adds a device to the one that it runs in."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from det_ops.npu_check import facts

STEPS = """
import torch
from torch import nn

def build_step(device):
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
    network = nn.Sequential(body, nn.Flatten(), nn.Linear(288, 4)).to(device)
    optimizer = torch.optim.AdamW(network.parameters())
    scaler = torch.amp.GradScaler("npu")
    calls = iter(range(9))

    def good():
        images = torch.rand(2, 3, 8, 8).pin_memory().to(device, non_blocking=True)
        with torch.autocast("npu", dtype=torch.float16):
            result = network(images)
        assert result.dtype == torch.float16 and result.device.type == "npu"
        out = torch.empty(0, device=device)
        torch.add(result.detach(), 1, out=out)
        out.unsqueeze_(0).resize_(4, 2)
        assert out.shape == (4, 2) and out.is_contiguous()
        return result

    def step():
        result = good()
        loss = nn.functional.smooth_l1_loss(result.float(), torch.zeros_like(result, dtype=torch.float32))
        loss = loss + nn.functional.huber_loss(result.float(), torch.ones(2, 4, device=device))  # cpu
        loss = loss + result.double().pow(2).mean()  # dtype
        positive = result.detach()[result > 0]  # dynamic
        result.detach().unique()  # dynamic
        float(loss)  # read
        result.tolist()  # read
        print(loss)  # read
        torch.tensor([1.0, 2.0], device=device)  # copy
        result[:, [0, 1]]  # copy
        torch.zeros(next(calls) + 1, device=device).sort()  # shapes
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)  # read
        scaler.update()
        network.load_state_dict({name: value.cpu() for name, value in network.state_dict().items()})  # read  # copy
        with torch.inference_mode():
            network.eval()(torch.ones(2, 3, 8, 8, device=device))
        network.train()

    return step

def build_vendor(device):
    import torch_npu

    boxes = torch.rand(8, 4, device=device, dtype=torch.bfloat16)
    return lambda: torch_npu.npu_iou(boxes * 2, boxes)

def build_fused(device):
    weight = torch.ones(2, device=device, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.1, fused=True)
    scaler = torch.amp.GradScaler("npu")

    def step():
        scaler.scale(weight.sum()).backward()
        scaler.step(optimizer)
        scaler.update()

    return step

def build_mixed(device):
    return lambda: torch.rand(2, device=device) + torch.rand(2)

def build_nms_on_the_host(device):
    import det_ops

    corner = torch.rand(2, 30, 2) * 50
    boxes, scores = torch.cat((corner, corner + 20), -1), torch.rand(2, 30)
    arguments = (boxes.to(device), scores.to(device), [10, 20], 0.4)
    valid = scores.to(device) > 0.2
    expected = det_ops.batched_nms(boxes, scores, *arguments[2:], max_output=9, valid=scores > 0.2)

    def step():
        with det_ops.kernels("host"):
            found = det_ops.batched_nms(*arguments, max_output=9, valid=valid)
        assert all(part.device.type == "npu" for part in found)
        if not all(torch.equal(part.cpu(), other) for part, other in zip(found, expected)):
            raise ValueError("other boxes")

    return step

def build_nms(device):
    import det_ops

    corner = torch.rand(2, 30, 2, device=device) * 50
    boxes, scores = torch.cat((corner, corner + 20), -1), torch.rand(2, 30, device=device)
    return lambda: det_ops.batched_nms(boxes, scores, [10, 20], 0.4, max_output=9)

def build_good(device):
    return lambda: torch.rand(2, device=device)

def build_nothing(device):
    return lambda: torch.rand(2)
"""


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "steps.py").write_text(STEPS)
    environment = os.environ | {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=1800
    )


def test_everything_is_found_at_its_line(tmp_path: Path) -> None:
    ended = python(tmp_path, "-m", "det_ops.npu_check", "steps:build_step", "--steps", "2", "--json")
    assert ended.returncode == 1, ended.stderr
    report = json.loads(ended.stdout[ended.stdout.index("\n{") :])
    assert report["error"] is None
    expected = {
        (kind.strip(), number)
        for number, line in enumerate(STEPS.splitlines(), start=1)
        for kind in line.split("  # ")[1:]
    }
    found = {(finding["kind"], finding["line"]) for finding in report["findings"]}
    assert found - {("dtype", number) for kind, number in found if kind == "dtype"} == {
        item for item in expected if item[0] != "dtype"
    }
    assert {item for item in expected if item[0] == "dtype"} <= found
    assert {finding["file"] for finding in report["findings"]} == {str(tmp_path / "steps.py")}
    (fallback,) = (finding for finding in report["findings"] if finding["kind"] == "cpu")
    assert fallback["operator"] == "aten::huber_loss"
    squared = next(n for n, line in enumerate(STEPS.splitlines(), start=1) if line.endswith("# dtype"))
    assert {finding["backward"] for finding in report["findings"] if finding["line"] == squared} == {False, True}


RAISES = ("steps:build_vendor", "steps:build_mixed")
CASES = [
    (("steps:build_vendor", "--soc", "910ProB"), 1, "deprecated: torch_npu warns"),
    (("steps:build_vendor", "--soc", "910ProB"), 1, "(bfloat16)"),
    (("steps:build_fused",), 1, "1 x aten::_fused_sgd_ (found_inf)"),
    (("steps:build_mixed",), 1, "Expected all tensors to be on the same device"),
    (("steps:build_nms_on_the_host",), 1, "read: the host waits for the device, and reads\n"),
    (("steps:build_nms",), 0, "0 findings"),
    (("steps:build_good",), 0, "0 findings for an Ascend 910B in 3 steps of 1 operator\n"),
    (("steps:build_nothing",), 2, "the step does nothing on the device"),
    (("steps:build_other",), 2, "module 'steps' has no function 'build_other'"),
    (("elsewhere:build_step",), 2, "there is no module 'elsewhere'"),
    (("steps",), 2, "must be given as module:function, got 'steps'"),
    (("steps:build_good", "--steps", "0"), 2, "steps must be at least 1, got 0"),
]


def test_what_it_says_and_its_exit_status(tmp_path: Path) -> None:
    runs = f"""
import sys
from det_ops.npu_check.__main__ import main

sys.stderr = sys.stdout
for arguments in {[case[0] for case in CASES]!r}:
    try:
        status = main(list(arguments))
    except SystemExit as end:
        status = end.code
    print("status", status)
"""
    ended = python(tmp_path, "-c", runs)
    assert ended.returncode == 0, ended.stderr
    printed = re.split(r"^status (\d+)$", ended.stdout, flags=re.MULTILINE)
    for (arguments, status, message), text, found in zip(CASES, printed[::2], printed[1::2], strict=False):
        assert (int(found), message in text) == (status, True), (arguments, text)
        assert ("Traceback" in text) == (arguments[0] in RAISES)


def test_the_operators_of_the_wheel() -> None:
    native = facts.native_operators()
    assert len(native) == 1496
    assert {"aten::convolution", "aten::_fused_sgd_", "aten::add.Tensor", "aten::nonzero"} <= native
    assert not {"aten::huber_loss", "aten::nonzero_static", "aten::segment_reduce"} & native
