"""What the NPU check says of torchvision's Mask R-CNN, as the read-me of det-ops shows it, and of ours: nothing."""

import json
from pathlib import Path
from typing import Any

import pytest

from testing import ROOT
from testing.processes import python
from testing.readmes import python_blocks

OURS = """
from det_ops.npu_check import check
from tests import npu_steps

APPS = ("mask_rcnn", "faster_rcnn", "cascade_rcnn", "yolact", "retinanet")
for app in (*APPS, "convnext", "resnet_d", "mobilenet", "swin"):
    report = check(getattr(npu_steps, app), steps=1, soc="910ProB")
    if report.error is not None:
        raise report.error
    assert report.operators > 500
    for finding in report.findings:
        print(app, finding)
"""


ALONE = {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}


@pytest.mark.slow
def test_torchvisions_mask_rcnn_has_dozens_of_findings(tmp_path: Path) -> None:
    (example,) = (block for block in python_blocks(ROOT / "packages/det-ops/README.md") if "build_step" in block)
    (tmp_path / "my_training.py").write_text(example)
    check = ("-m", "det_ops.npu_check", "my_training:build_step", "--steps", 2, "--json")
    ended = python(*check, folder=tmp_path, **ALONE)
    assert ended.returncode == 1, ended.stderr
    report = json.loads(ended.stdout)
    assert report["error"] is None

    def at(kind: str) -> list[dict[str, Any]]:
        return [finding for finding in report["findings"] if finding["kind"] == kind]

    for kind, least in (("cpu", 3), ("dynamic", 10), ("read", 1), ("copy", 5), ("shapes", 5)):
        assert len(at(kind)) >= least, kind
    assert {"torchvision::nms", "torchvision::roi_align", "torchvision::_roi_align_backward"} == {
        finding["operator"] for finding in at("cpu")
    }
    for finding in report["findings"]:
        assert "torchvision" in finding["file"]
    # The lines are those of the calls.
    for kind, operator, call in (
        ("dynamic", "aten::nonzero", "torch.where("),
        ("cpu", "torchvision::nms", "torch.ops.torchvision.nms("),
        ("read", "aten::_local_scalar_dense", ".any()"),
    ):
        lines = [
            Path(finding["file"]).read_text().splitlines()[finding["line"] - 1]
            for finding in at(kind)
            if finding["operator"] == operator
        ]
        assert any(call in line for line in lines), (call, lines)
    assert any(finding["backward"] for finding in at("cpu"))


@pytest.mark.slow
def test_our_models_have_none(shapes: Path, tmp_path: Path) -> None:
    ended = python("-c", OURS, folder=tmp_path, SHAPES=str(shapes), **ALONE)
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stdout + ended.stderr
