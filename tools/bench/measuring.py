"""Taking turns, medians, and the record of what was measured."""

import argparse
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torchvision

ROOT = Path(__file__).parents[2]


def add_options(parser: argparse.ArgumentParser) -> None:
    """What every comparison of whole detectors takes."""
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument("--warmup", type=int, default=2, help="rounds before the timing")
    parser.add_argument("--repeat", type=int, default=5, help="timed rounds; every side runs once in each")
    parser.add_argument("--json", type=Path, help="file to append a line per row to, such as benchmarks/results.jsonl")


def take_turns(
    sides: Mapping[str, Callable[[], object]], options: argparse.Namespace, *, calls: int = 1
) -> dict[str, float]:
    """Median seconds of a call of each side; on a shared machine all sides meet the same load.

    With several calls in a row the host prepares one while the device is busy with the one before, as in a training.
    With one thread of the CPU they are CPU seconds, which other work on the machine changes least.
    """
    clock = time.process_time if (options.device, options.threads) == ("cpu", 1) else time.perf_counter
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for round_ in range(options.warmup + options.repeat):
        for name, action in sides.items():
            wait(options.device)
            began = clock()
            for _ in range(calls):
                action()
            wait(options.device)
            if round_ >= options.warmup:
                taken[name].append((clock() - began) / calls)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def wait(device: str) -> None:
    """Empty the device's queue."""
    if device != "cpu":
        torch.accelerator.synchronize()


def peak_memory(*, reset: bool = False) -> float:
    """The most memory that this process had, in MiB; since the last reset, where the system can (Linux)."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    return int(re.findall(r"VmHWM:\s+(\d+)", status.read_text())[0]) / 1024


def surroundings(options: argparse.Namespace) -> dict[str, Any]:
    """Date, device, versions and commit: what a figure means nothing without."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    commit = commit or os.environ.get("DET_COMMIT", "unknown")  # in a copy without its history
    cuda = options.device != "cpu"
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": commit,
        "device": torch.cuda.get_device_name() if cuda else f"{platform.machine()} CPU, {os.cpu_count()} cores",
        "threads": options.threads,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }


def append(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Put the rows at the end of the record, if one is wanted."""
    if options.json is None:
        return
    where = surroundings(options)
    with options.json.open("a") as file:
        file.writelines(json.dumps(where | row) + "\n" for row in rows)
