"""Devices: the one a name means, why one is not there, and what a run ran on."""

import importlib.metadata
import importlib.util
import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from det_engine import distributed
from det_engine.errors import EngineError

_NAME = re.compile(r"(auto|cpu|cuda|npu)(?::(\d+))?")
_FIRST_ASCEND = re.compile(r"Ascend910(A|B|ProA|ProB|PremiumA)?")
_ADVISED: set[str] = set()


def resolve_device(name: str = "auto") -> torch.device:
    """The device that `name` means on this machine, made the current one.

    Args:
        name: `cpu`, `cuda`, `npu`, one of the latter two with an index (`npu:3`), or `auto`: the first of cuda,
            npu and cpu that is there; says why it is the CPU where torch_npu is installed. For an NPU what of the
            environment slows it down is printed once.

    Returns:
        `torch.device("cpu")`, or an accelerator with its index.

    Raises:
        EngineError: the device is not there; the message names the part that is missing.
    """
    found = _NAME.fullmatch(name.strip().lower())
    if found is None or (found[2] and found[1] in ("auto", "cpu")):
        raise EngineError(f"Device must be auto, cpu, cuda[:index] or npu[:index], got {name!r}.")
    kind, index = found[1], int(found[2]) if found[2] else None
    if kind == "auto":
        kind = next((k for k in ("cuda", "npu") if _missing(k) is None), "cpu")
        if kind == "cpu" and importlib.util.find_spec("torch_npu") is not None:
            print(f"Device auto is the CPU: {_missing_npu()}", file=sys.stderr, flush=True)
    if kind == "cpu":
        return torch.device("cpu")
    missing = _missing(kind)
    if missing is not None:
        raise EngineError(f"Device {name!r} is not there: {missing} Use --device cpu, or --device auto.")
    count = getattr(torch, kind).device_count()
    if index is None and distributed.is_launched():
        # Each process has its own; a launcher may also show each of them only one.
        index = distributed.local_rank() % count
    if index is not None and index >= count:
        raise EngineError(f"Device {name!r} is not there: this machine shows {count} (0 to {count - 1}).")
    device = torch.device(kind, index if index is not None else getattr(torch, kind).current_device())
    torch.accelerator.set_device_index(device.index)
    if kind == "npu" and distributed.local_rank() == 0:
        chip = getattr(torch, kind).get_device_name(device)
        for advice in [] if chip in _ADVISED else npu_advice(chip, os.environ):
            print(advice, file=sys.stderr, flush=True)
        _ADVISED.add(chip)
    return device


def is_first_ascend(name: str) -> bool:
    """Whether an NPU of that name (`Ascend910ProB`) is of the first Ascend 910 generation, before 910B1.

    It has no bfloat16, and compiles operators online unless told otherwise.
    """
    return _FIRST_ASCEND.fullmatch(name) is not None


def npu_advice(name: str, environment: Mapping[str, str]) -> list[str]:
    """What of the environment slows this NPU down, a sentence each; nothing is changed.

    Args:
        name: as `torch.npu.get_device_name` gives it.
        environment: variables of the process.
    """
    allocator = environment.get("PYTORCH_ALLOC_CONF", environment.get("PYTORCH_NPU_ALLOC_CONF", ""))
    found = []
    if "expandable_segments:True" not in allocator:
        found.append("PYTORCH_ALLOC_CONF=expandable_segments:True lets images of several sizes share memory.")
    if environment.get("TASK_QUEUE_ENABLE") != "2":
        found.append("TASK_QUEUE_ENABLE=2 lets more of the host's work overlap with the NPU's.")
    if environment.get("ASCEND_LAUNCH_BLOCKING") == "1":
        found.append("ASCEND_LAUNCH_BLOCKING=1 is for finding errors: every operator waits for the one before it.")
    if is_first_ascend(name):
        found.append(
            f"{name} compiles operators online and computes float32 in float16 unless "
            "torch.npu.set_compile_mode(jit_compile=False) and ACL_PRECISION_MODE=must_keep_origin_dtype say otherwise."
        )
    return [f"Advice for {name}: {sentence}" for sentence in found]


def _missing(kind: str) -> str | None:
    """The part that keeps `kind` from working, as a sentence; None if nothing does."""
    return _missing_cuda() if kind == "cuda" else _missing_npu()


def _missing_cuda() -> str | None:
    if torch.cuda.is_available():
        return None
    if torch.version.cuda is None and torch.version.hip is None:
        return f"this torch ({torch.__version__}) was built without CUDA."
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        if "driver" in reason.lower():
            return f"no usable NVIDIA driver ({reason.rstrip('.')})."
        return f"CUDA does not start ({reason.rstrip('.')})."
    return "no NVIDIA GPU is visible (CUDA_VISIBLE_DEVICES may hide it)."


def _missing_npu() -> str | None:
    module = getattr(torch, "npu", None)
    if module is None:
        if importlib.util.find_spec("torch_npu") is None:
            return f"torch_npu is not installed (it must fit torch {torch.__version__})."
        if torch.version.cuda is not None:
            # Both register one allocator option; the second ends the process with SIGABRT, which nobody can catch.
            return (
                f"torch {torch.__version__} is a CUDA build, with which torch_npu does not load; install the build for "
                "CPUs (https://download.pytorch.org/whl/cpu)."
            )
        try:
            importlib.import_module("torch_npu")
        except (ImportError, OSError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0].rstrip(".")
            return f"torch_npu does not load, CANN is probably missing or not sourced (set_env.sh): {reason}."
        module = getattr(torch, "npu", None)
    if module is None or not module.is_available():
        return "torch_npu is installed, but no NPU is visible (see `npu-smi info`, ASCEND_RT_VISIBLE_DEVICES)."
    return None


def describe_environment(device: torch.device, packages: Iterable[str] = ()) -> dict[str, Any]:
    """What a run ran on, for `environment.json`.

    It holds no host name, user name or path, so that a run directory can be given away.

    Args:
        device: the run's device.
        packages: names of further installed distributions whose versions matter to the run.
    """
    versions = {}
    for package in sorted({"numpy", "torch", "torchvision", "torch_npu", "det-engine", *packages}):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    environment: dict[str, Any] = {
        "written_by": "det-engine",
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": str(device),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "versions": versions,
    }
    if device.type != "cpu":
        module = getattr(torch, device.type)
        environment["device_name"] = module.get_device_name(device)
        environment["device_count"] = module.device_count()
    return environment


def peak_memory_mib(device: torch.device) -> float | None:
    """Peak memory in MiB: of the accelerator's allocator, or the process's resident set on CPU (None if unknown)."""
    if device.type != "cpu":
        return torch.accelerator.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if platform.system() == "Darwin" else 2**10)
