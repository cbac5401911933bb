"""`hatch run npu:check`: the apps' networks through the real torch_npu, on a stand-in for CANN, without an NPU.

For each kind of NPU and each network two training steps and an inference: equal to the CPU's; no operator of a shape
that depends on values, no wait of the host, none that torch_npu would leave to the CPU, none that it calls deprecated,
none that the NPU lacks; and the operators are those of the files in `golden/`, with dtypes, shapes and attributes.
Small networks run in half precision too, and from graphs. Before them come steps that do each of these things, to see
that it is noticed.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from tools.npu import standin
from tools.npu.judging import changes, folded, judge

HERE = Path(__file__).parent
GOLDEN = HERE / "golden"
ROOT = HERE.parents[1]
PACKAGES = ROOT / f".hatch/npu/lib/python3.{sys.version_info.minor}/site-packages"
"""Where torch_npu is; PyTorch and all else come from the default environment."""

SOCS = ("Ascend910ProB", "Ascend910B3", "Ascend950PR_9589")
GOLDEN_SOC = "Ascend910B3"
"""The one whose operators are kept; on the others they must be the same, computed by other kernels maybe."""

TINY = ("faster_rcnn/tiny", "mask_rcnn/tiny", "cascade_rcnn/tiny", "yolact/tiny", "retinanet/tiny")
FULL = (
    "faster_rcnn/faster_rcnn_r50_fpn_1x",
    "mask_rcnn/mask_rcnn_r50_fpn_1x",
    "mask_rcnn/mask_rcnn_r50_fpn_1x_mlperf",
    "cascade_rcnn/cascade_mask_rcnn_r50_fpn_1x",
    "cascade_rcnn/cascade_mask_rcnn_r50_fpn_1x_mmdet",
    "retinanet/retinanet_r50_fpn_1x",
    "retinanet/fcos_r50_fpn_1x",
    "yolact/yolact_resnet50",
    "yolact/yolact_darknet53",
    "yolact/yolact_plus_resnet50",
)

BODIES = (
    "timm/convnextv2_atto",
    "timm/resnet10t",
    "timm/mobilenetv3_small_050",
    "timm/swin_tiny_patch4_window7_224",
    "timm/vit_tiny_patch16_224",
)
"""Mask R-CNN on networks of timm, of which these are the kinds of body that a user may bring."""

NOT_ON_910 = ("timm/vit_tiny_patch16_224",)
"""Those whose position embeddings torch_npu resamples on the CPU, for the first Ascend 910."""


def main() -> None:
    """Exit status 1 where something does not hold."""
    parser = argparse.ArgumentParser(prog="hatch run npu:check", description=__doc__.partition("\n\n")[0])
    parser.add_argument(
        "networks", nargs="*", default=[*TINY, *FULL, *BODIES], help="such as mask_rcnn/tiny; by default all"
    )
    parser.add_argument("--soc", choices=SOCS, action="append", help="kind of NPU; by default all")
    parser.add_argument("--update", action="store_true", help=f"write the golden files anew, with an {GOLDEN_SOC}")
    options = parser.parse_args()
    unknown = sorted(set(options.networks) - {*TINY, *FULL, *BODIES})
    if unknown:
        parser.error(f"there is no network {', '.join(unknown)}; there are {', '.join((*TINY, *FULL, *BODIES))}")
    sys.path.append(str(PACKAGES))
    missing = _missing()
    if missing:
        raise SystemExit(f"npu:check cannot run: {missing}")
    print(f"torch {importlib.metadata.version('torch')}, torch_npu {importlib.metadata.version('torch_npu')}, no CANN")
    with tempfile.TemporaryDirectory() as folder:
        standin.build(Path(folder))
        socs = [GOLDEN_SOC] if options.update else options.soc or SOCS
        # Each process computes in one thread.
        with ThreadPoolExecutor(min(len(socs), os.cpu_count() or 1)) as pool:
            check = partial(_check, Path(folder), options.networks, update=options.update)
            problems = sum(pool.map(check, socs))
    print(f"\n{problems} problems" if problems else "\nEverything holds.")
    raise SystemExit(1 if problems else 0)


def _missing() -> str | None:
    """The part of the machine that the check cannot do without, as a sentence."""
    if sys.platform != "linux":
        return "torch_npu has wheels for Linux alone."
    tools = [tool for tool in ("g++", "nm", "objdump") if shutil.which(tool) is None]
    if tools:
        return f"{', '.join(tools)} must be installed, which build the stand-in for CANN (g++ and binutils)."
    if importlib.util.find_spec("torch_npu") is None:
        return (
            f"torch_npu is not in {PACKAGES.relative_to(ROOT)}, and could not be installed there for the reason above; "
            "its wheel comes from PyPI once, for x86_64 and aarch64."
        )
    releases = {name: importlib.metadata.version(name).split(".")[:2] for name in ("torch", "torch_npu")}
    if releases["torch"] != releases["torch_npu"]:
        found = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in releases)
        return f"torch and torch_npu must be of the same release, found {found}; hatch.toml names that of torch_npu."
    return None


def _check(folder: Path, networks: list[str], soc: str, *, update: bool) -> int:
    """The number of problems on one kind of NPU, after printing them."""
    networks = [name for name in networks if not (soc == "Ascend910ProB" and name in NOT_ON_910)]
    tasks = [(name, "fp32") for name in networks]
    # The first Ascends have no bfloat16.
    tiny = [name for name in networks if name in TINY]
    tasks += [(name, "fp16" if soc == "Ascend910ProB" else "bf16") for name in tiny]
    if soc == GOLDEN_SOC:
        tasks += [(name, "captured") for name in tiny]
    problems = 0
    for (network, precision), result in zip(tasks, _results(folder, soc, tasks), strict=True):
        if isinstance(result, str):
            found, end = [result], "FAILED"
        else:
            found = judge(result, precision)
            if precision == "fp32":
                found += _compare(network, soc, folded(result["lines"]), update=update)
            end = "FAILED" if found else f"differs from the CPU by {max(result['differences'].values()):.1e}"
        lines = [f"{soc:17} {precision:8}  {network:48} {end}", *(f"    {problem}" for problem in found[:20])]
        print("\n".join(lines), flush=True)  # in one call: other kinds of NPU print too
        problems += len(found)
    return problems


def _results(folder: Path, soc: str, tasks: list[tuple[str, str]]) -> Iterator[dict[str, Any] | str]:
    """What the worker tells of each task, as it comes; of the first that does not come through, why."""
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
    command = [sys.executable, str(HERE / "worker.py"), *map(":".join, tasks)]
    found = 0
    with tempfile.TemporaryFile("w+") as log:
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True) as worker:
            assert worker.stdout is not None
            for line in worker.stdout:
                if line.startswith("{"):
                    found += 1
                    yield json.loads(line)
        log.seek(0)
        end = "\n      ".join(log.read().splitlines()[-40:])
    if found < len(tasks):
        yield f"the step did not come through:\n      {end}"
    for _ in range(found + 1, len(tasks)):
        yield "did not run, since the one before did not come through"


def _compare(network: str, soc: str, text: str, *, update: bool) -> list[str]:
    """How the operators differ from the golden file's."""
    path = GOLDEN / f"{network.replace('/', '-')}.txt"
    if update:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    if not path.exists():
        return [f"{path.relative_to(ROOT)} is missing: `hatch run npu:check --update` writes it"]
    found = changes(path.read_text(), text, kernels=soc == GOLDEN_SOC)
    if not found:
        return []
    return [f"{len(found)} lines differ from {path.relative_to(ROOT)}; --update, if that is meant:", *found]


if __name__ == "__main__":
    main()
