"""Operators of det_ops against their peers, in one run: time of ours, of the peer, ratio and target.

hatch run bench ops [--device cpu|cuda] [--threads 2] [--repeat 15] [--only WORD] [--check] [--json FILE]

Both sides get the same input, device and number of threads; their results are compared before they are timed. They take
turns; the medians are reported. `--check` ends with status 1 where a ratio misses its target (targets are the CPU's).
"""

import argparse
import ctypes
import json
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torchvision
from operators import CASES, Case, Work


@dataclass(frozen=True, slots=True)
class Row:
    """A measured case."""

    name: str
    peer: str
    ours: float
    theirs: float
    ratio: float
    target: float
    unit: str


def on_gpu() -> bool:
    """Whether the benchmark runs on a GPU, where the cases' tensors are made by default."""
    return torch.get_default_device().type == "cuda"


def wait() -> None:
    """Until the device has done all it was told to."""
    if on_gpu():
        torch.cuda.synchronize()


def medians_ms(work: Work, repeat: int) -> tuple[float, float]:
    """Median times of ours and of the peer in milliseconds, turn by turn, so that other load meets both alike."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeat):
        for function, taken in zip((work.ours, work.peer), times, strict=True):
            wait()
            start = time.perf_counter()
            function()
            wait()
            taken.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times[0]), statistics.median(times[1])


def peak_megabytes(function: Callable[[], object]) -> float:
    """How much memory a call takes at its highest: of the GPU, or resident memory of this process (Linux only)."""
    if on_gpu():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return (torch.cuda.max_memory_allocated() - before) / 2**20

    def resident(field: str) -> float:
        found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert found
        return int(found[1]) / 1024

    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the highest mark starts again here
    before = resident("VmRSS")
    function()
    return resident("VmHWM") - before


def measure(case: Case, repeat: int) -> Row:
    """Compare both sides' results (which compiles GPU kernels), then what they cost."""
    torch.manual_seed(0)
    work = case.build()
    if not work.agree():
        raise SystemExit(f"{case.name}: the results of det_ops and {case.peer} differ")
    if case.unit == "MB":
        # No less than a page's noise, so that the ratio means something.
        ours, theirs = max(peak_megabytes(work.ours), 0.1), peak_megabytes(work.peer)
    else:
        ours, theirs = medians_ms(work, repeat)
    return Row(case.name, case.peer, ours, theirs, theirs / ours, case.target, case.unit)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; the return value is the exit status."""
    parser = argparse.ArgumentParser(description="Operators of det_ops against their peers.")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--check", action="store_true", help="status 1 where a ratio misses its target")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    torch.set_default_device(options.device)
    rows = []
    device = torch.cuda.get_device_name() if on_gpu() else f"{options.threads} threads"
    print(f"{device}, torch {torch.__version__}, torchvision {torchvision.__version__}")
    print(f"{'work':46} {'ours':>10} {'peer':>10} {'ratio':>8} {'target':>8}  peer")
    for case in CASES:
        if options.only not in case.name or (on_gpu() and not case.gpu):
            continue
        row = measure(case, options.repeat)
        rows.append(row)
        verdict = "" if row.ratio >= row.target else "  MISSED"
        print(
            f"{row.name:46} {row.ours:7.2f} {row.unit} {row.theirs:7.2f} {row.unit} {row.ratio:7.1f}x"
            f" {row.target:7g}x  {row.peer}{verdict}",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps({"device": device, "rows": [asdict(row) for row in rows]}, indent=1))
    return int(options.check and any(row.ratio < row.target for row in rows))


if __name__ == "__main__":
    sys.exit(main())
