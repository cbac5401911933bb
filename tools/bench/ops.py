"""Operators of det_ops against their peers on the CPU, in one run: time of ours, of the peer, ratio and target.

python tools/bench/ops.py [--threads 2] [--repeat 15] [--only WORD] [--check] [--json FILE]

Both sides get the same input and the same number of threads; their results are compared before they are timed. They
take turns; the medians are reported. `--check` ends with status 1 where a ratio misses its target.
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
from typing import NamedTuple

import torch
import torchvision
from torch import Tensor
from torchvision.models.detection._utils import Matcher

import det_ops


class Work(NamedTuple):
    """What a case builds: the two sides as functions without arguments, and whether they agree on the result."""

    ours: Callable[[], object]
    peer: Callable[[], object]
    agree: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Case:
    """A row: `target` is the least ratio peer / ours; `build` makes the input and both sides."""

    name: str
    peer: str
    target: float
    build: Callable[[], Work]
    unit: str = "ms"  # or MB: the most memory in use during the call


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


def scene(n: int, height: int = 800, width: int = 1333) -> tuple[Tensor, Tensor]:
    """Boxes `[n, 4]` as a detector proposes them, about 50 around each object, and their scores `[n]`.

    Thresholds of 0.5 and 0.7 keep a sixth and a half of 2,000 boxes.
    """
    objects = max(n // 50, 1)
    centres = torch.rand(objects, 2) * torch.tensor([width, height])
    sides = torch.exp(torch.rand(objects, 2) * 2.5 + 3)
    owner = torch.randint(0, objects, (n,))
    centre = centres[owner] + torch.randn(n, 2) * 0.15 * sides[owner]
    side = sides[owner] * torch.exp(torch.randn(n, 2) * 0.25)
    limit = torch.tensor([width, height, width, height])
    boxes = torch.minimum(torch.cat((centre - side / 2, centre + side / 2), 1).clamp(min=0), limit)
    return boxes, torch.rand(n)


def anchors(height: int = 800, width: int = 1216) -> Tensor:
    """The first 240,000 of the anchors `[N, 4]` of five levels, three per place, in the order of a detector."""
    levels = []
    for stride in (4, 8, 16, 32, 64):
        y, x = torch.meshgrid(torch.arange(0, height, stride), torch.arange(0, width, stride), indexing="ij")
        sides = 8 * stride * torch.tensor([[2**0.5, 0.5**0.5], [1, 1], [0.5**0.5, 2**0.5]])
        cells = torch.cat((-sides / 2, sides / 2), 1)
        levels.append((torch.stack((x, y, x, y), -1).reshape(-1, 1, 4) + cells).reshape(-1, 4))
    return torch.cat(levels)[:240_000]


def nms_case(n: int) -> Work:
    """One set of boxes, the length of the result depends on them."""
    boxes, scores = scene(n)

    def ours() -> Tensor:
        indices = det_ops.nms(boxes, scores, 0.5)
        assert isinstance(indices, Tensor)
        return indices

    def peer() -> Tensor:
        return torchvision.ops.nms(boxes, scores, 0.5)

    return Work(ours, peer, lambda: torch.equal(ours(), peer()))


def batched_nms_case(max_output: int) -> Work:
    """The proposals of 8 images: 1,000 of each of 5 levels, the best `max_output` kept."""
    images = [scene(5000)[0] for _ in range(8)]
    boxes = torch.stack(images)
    # All scores of an image differ: torchvision does not define the order of equal ones.
    scores = torch.stack([torch.randperm(5000) for _ in images]) / 5000
    groups = torch.arange(5).repeat_interleave(1000).expand(8, -1).contiguous()

    def ours() -> tuple[Tensor, Tensor]:
        return det_ops.batched_nms(boxes, scores, groups, 0.7, max_output=max_output)

    def peer() -> list[Tensor]:
        every = zip(boxes, scores, groups, strict=True)
        return [torchvision.ops.batched_nms(*image, 0.7)[:max_output] for image in every]

    def agree() -> bool:
        return all(torch.equal(i[v], p) for i, v, p in zip(*ours(), peer(), strict=True))

    return Work(ours, peer, agree)


def match_case() -> Work:
    """Anchors of an 800 x 1216 image, thresholds of the RPN."""
    grid, (truth, _) = anchors(), scene(50)
    valid = torch.ones(1, 50, dtype=torch.bool)
    matcher = Matcher(0.7, 0.3, allow_low_quality_matches=True)

    def ours() -> tuple[Tensor, Tensor]:
        return det_ops.match(grid, truth[None], valid, high=0.7, low=0.3, allow_low_quality=True)

    def peer() -> Tensor:
        return matcher(torchvision.ops.box_iou(truth, grid))

    def agree() -> bool:
        (index,), (label,) = ours()
        return torch.equal(torch.where(label == 1, index, label.long() - 1), peer())

    return Work(ours, peer, agree)


CASES = [
    Case("nms, 2,000 boxes", "torchvision", 5, lambda: nms_case(2000)),
    Case("nms, 10,000 boxes", "torchvision", 8, lambda: nms_case(10_000)),
    Case("batched nms, 5 levels x 8 images, best 1,000", "torchvision", 8, lambda: batched_nms_case(1000)),
    Case("batched nms, 5 levels x 8 images, all", "torchvision", 8, lambda: batched_nms_case(5000)),
    Case("match, 240,000 anchors to 50 boxes", "torchvision", 4, match_case),
    Case("match, 240,000 anchors to 50 boxes", "torchvision", 10, match_case, "MB"),
]
"""The rows, in the order they are printed."""


def medians_ms(work: Work, repeat: int) -> tuple[float, float]:
    """Median times of ours and of the peer in milliseconds, turn by turn, so that other load meets both alike."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeat):
        for function, taken in zip((work.ours, work.peer), times, strict=True):
            start = time.perf_counter()
            function()
            taken.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times[0]), statistics.median(times[1])


def peak_megabytes(function: Callable[[], object]) -> float:
    """How much the resident memory of this process grows during a call, at its highest (Linux only)."""

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
    """Compare both sides' results, then what they cost."""
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
    parser = argparse.ArgumentParser(description="Operators of det_ops against their peers on the CPU.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--check", action="store_true", help="status 1 where a ratio misses its target")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    rows = []
    print(f"{options.threads} threads, torch {torch.__version__}, torchvision {torchvision.__version__}")
    print(f"{'work':46} {'ours':>10} {'peer':>10} {'ratio':>8} {'target':>8}  peer")
    for case in CASES:
        if options.only not in case.name:
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
        options.json.write_text(
            json.dumps({"threads": options.threads, "rows": [asdict(row) for row in rows]}, indent=1)
        )
    return int(options.check and any(row.ratio < row.target for row in rows))


if __name__ == "__main__":
    sys.exit(main())
