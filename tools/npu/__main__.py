"""`hatch run npu:check`: the apps' networks through the real torch_npu, on a stand-in for CANN, without an NPU.

For each kind of NPU and each network two training steps and an inference: equal to the CPU's; no operator of a shape
that depends on values, no wait of the host, none that torch_npu would leave to the CPU, none that it calls deprecated,
none that the NPU lacks; and the operators are those of the files in `golden/`, with dtypes, shapes and attributes.
"""

import argparse
import difflib
import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.npu import standin

HERE = Path(__file__).parent
GOLDEN = HERE / "golden"
ROOT = HERE.parents[1]
PACKAGES = ROOT / f".hatch/npu/lib/python3.{sys.version_info.minor}/site-packages"
"""Where torch_npu is; PyTorch and all else come from the default environment."""

SOCS = ("Ascend910ProB", "Ascend910B3", "Ascend950PR_9589")
GOLDEN_SOC = "Ascend910B3"
"""The one whose operators are kept; on the others they must be the same, computed by other kernels maybe."""

_INDICES = re.compile(r"(max_pool2d_with_indices_backward\(.*), i\d+\[[\d,]*\]\)$")

TINY = ("faster_rcnn/tiny", "mask_rcnn/tiny", "cascade_rcnn/tiny", "yolact/tiny")
FULL = (
    "faster_rcnn/faster_rcnn_r50_fpn_1x",
    "mask_rcnn/mask_rcnn_r50_fpn_1x",
    "mask_rcnn/mask_rcnn_r50_fpn_1x_mlperf",
    "cascade_rcnn/cascade_mask_rcnn_r50_fpn_1x",
    "cascade_rcnn/cascade_mask_rcnn_r50_fpn_1x_mmdet",
    "yolact/yolact_resnet50",
    "yolact/yolact_darknet53",
    "yolact/yolact_plus_resnet50",
)
TOLERANCE = {"fp32": 1e-3, "fp16": 0.05, "bf16": 0.05}
"""Of losses, gradients, weights and detections; in half precision of losses alone."""

NOISE = {"fp32": 10, "fp16": 3, "bf16": 3}
"""How many times the CPU's own noise is admitted where that is more: in full precision what its other kernels give, in
half precision what full precision gives."""


def main() -> None:
    """Exit status 1 where something does not hold."""
    parser = argparse.ArgumentParser(prog="hatch run npu:check", description=__doc__.partition("\n\n")[0])
    parser.add_argument("networks", nargs="*", default=[*TINY, *FULL], help="such as mask_rcnn/tiny; by default all")
    parser.add_argument("--soc", choices=SOCS, action="append", help="kind of NPU; by default all")
    parser.add_argument("--update", action="store_true", help="write the golden files anew")
    options = parser.parse_args()
    sys.path.append(str(PACKAGES))
    if importlib.util.find_spec("torch_npu") is None:
        raise SystemExit(f"torch_npu is not in {PACKAGES}, where `hatch run npu:check` puts it.")
    print(f"torch {importlib.metadata.version('torch')}, torch_npu {importlib.metadata.version('torch_npu')}, no CANN")
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        standin.build(Path(folder))
        for soc in options.soc or SOCS:
            runs = [(list(options.networks), "fp32")]
            tiny = [name for name in options.networks if name in TINY]
            if tiny:
                runs.append((tiny, "fp16" if soc == "Ascend910ProB" else "bf16"))  # it has no bfloat16
            for networks, precision in runs:
                problems += _check(Path(folder), soc, networks, precision, update=options.update)
    print(f"\n{len(problems)} problems" if problems else "\nEverything holds.")
    raise SystemExit(1 if problems else 0)


def _check(folder: Path, soc: str, networks: list[str], precision: str, *, update: bool) -> list[str]:
    """What does not hold, after printing it."""
    problems: list[str] = []
    for network, result in zip(networks, _results(folder, soc, networks, precision), strict=False):
        found = [] if result is None else list(result["faults"])
        if result is None:
            found.append("the step did not come through; the reason is above")
        else:
            found += [
                f"{name} differ from the CPU's by {difference:.1e}, relatively, noise is {result['noise'][name]:.1e}"
                for name, difference in result["differences"].items()
                if not difference <= max(TOLERANCE[precision], NOISE[precision] * result["noise"][name])
            ]
            if precision == "fp32":
                found += _compare(network, soc, result["lines"], update=update)
        worst = "" if result is None else f"differs from the CPU by {max(result['differences'].values()):.1e}"
        print(f"{soc:17} {precision}  {network:48} {'FAILED' if found else worst}", flush=True)
        for problem in found[:20]:
            print(f"    {problem}")
        problems += found
    return problems


def _results(folder: Path, soc: str, networks: list[str], precision: str) -> Iterator[dict[str, Any] | None]:
    """What the worker tells of each network, as it comes; None from the first one on that it did not come through."""
    preload = [str(folder / standin.CUDA_TORCH)] if importlib.util.find_spec("nvidia") is not None else []
    environment = os.environ | {
        "ASCEND_GLOBAL_LOG_LEVEL": "3",
        "LD_LIBRARY_PATH": str(folder),
        "OMP_NUM_THREADS": "1",  # small tensors: more threads only wait for each other
        "LD_PRELOAD": " ".join(preload),
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(PACKAGES))),
        "STANDIN_SOC": soc,
        "TASK_QUEUE_ENABLE": "0",  # a kernel is then launched by the operator it belongs to
        "TORCH_DEVICE_BACKEND_AUTOLOAD": "0",
        "TORCH_NPU_FALLBACK_CPU_DISABLE": "1",
    }
    command = [sys.executable, str(HERE / "worker.py"), *networks, precision]
    found = 0
    with tempfile.TemporaryFile("w+") as log:
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True) as worker:
            assert worker.stdout is not None
            for line in worker.stdout:
                if line.startswith("{"):
                    found += 1
                    yield json.loads(line)
        if found < len(networks):
            log.seek(0)
            print("\n".join(log.read().splitlines()[-40:]))
    for _ in range(found, len(networks)):
        yield None


def _compare(network: str, soc: str, lines: dict[str, list[str]], *, update: bool) -> list[str]:
    """How the operators differ from the golden file's."""
    path = GOLDEN / f"{network.replace('/', '-')}.txt"
    text = _folded(lines)
    if update and soc == GOLDEN_SOC:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    if not path.exists():
        return [f"{path.relative_to(ROOT)} is missing: `hatch run npu:check --update` writes it"]
    kept = path.read_text().splitlines()
    found = text.splitlines()
    if soc != GOLDEN_SOC:
        kept, found = _without_kernels(kept), _without_kernels(found)
    changes = [
        line
        for line in difflib.unified_diff(kept, found, lineterm="", n=0)
        if not line.startswith(("---", "+++", "@@"))
    ]
    if not changes:
        return []
    return [f"{len(changes)} lines differ from {path.relative_to(ROOT)}; --update, if that is meant:", *changes]


def _without_kernels(folded: list[str]) -> list[str]:
    """The lines of `_folded` by operators alone, whose indices of maxima have a form for each kind of NPU."""
    counts: Counter[tuple[str, str]] = Counter()
    part = ""
    for line in folded:
        if line.startswith("#"):
            part = line
        else:
            count, _, operator = line.strip().partition(" ")
            counts[part, _INDICES.sub(r"\1, indices)", operator.partition(" -> ")[0])] += int(count)
    return [f"{part} {count:4} {operator}" for (part, operator), count in counts.items()]


def _folded(lines: dict[str, list[str]]) -> str:
    """A line for each operator with its dtypes, shapes, attributes and kernels, and how often it is called."""
    parts = []
    for name, calls in lines.items():
        parts.append(f"# {name}: {len(calls)} operators")
        parts += [f"{count:4} {line}" for line, count in Counter(calls).items()]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
