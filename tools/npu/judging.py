"""Whether what a worker tells of a network holds: its faults, its numbers, its operators beside the golden file's."""

import difflib
import re
from collections import Counter
from typing import Any

TOLERANCE = {"fp32": 1e-3, "captured": 1e-3, "fp16": 0.05, "bf16": 0.05}
"""Of losses, gradients, weights and detections; in half precision of losses alone."""

NOISE = {"fp32": 10, "captured": 10, "fp16": 3, "bf16": 3}
"""How many times the CPU's own noise is admitted where that is more: in full precision what its other kernels give, in
half precision what full precision gives."""

_INDICES = re.compile(r"(max_pool2d_with_indices_backward\(.*), i\d+\[[\d,]*\]\)$")

_ATTENTION = re.compile(r"(npu_fusion_attention(?:_grad)?)(?:_v3)?\((.*?, [BS]\w{2,3}),.*\)$")
"""The attention of each kind of NPU, whose forms differ in what they say of random numbers."""


def judge(result: dict[str, Any], precision: str) -> list[str]:
    """What the step did that it must not do, and where its numbers are not the CPU's."""
    return result["faults"] + [
        f"{name} differ from the CPU's by {difference:.1e}, relatively, noise is {result['noise'][name]:.1e}"
        for name, difference in result["differences"].items()
        if not difference <= max(TOLERANCE[precision], NOISE[precision] * result["noise"][name])
    ]


def folded(lines: dict[str, list[str]]) -> str:
    """A line for each operator with its dtypes, shapes, attributes and kernels, and how often it is called."""
    parts = []
    for name, calls in lines.items():
        parts.append(f"# {name}: {len(calls)} operators")
        parts += [f"{count:4} {line}" for line, count in Counter(calls).items()]
    return "\n".join(parts) + "\n"


def changes(kept: str, found: str, *, kernels: bool) -> list[str]:
    """The lines in which two texts of `folded` differ.

    Args:
        kept: that of the golden file.
        found: the present one.
        kernels: whether the kernels that serve operators count; other kinds of NPU may have others.
    """
    before, after = kept.splitlines(), found.splitlines()
    if not kernels:
        before, after = _without_kernels(before), _without_kernels(after)
    return [
        line
        for line in difflib.unified_diff(before, after, lineterm="", n=0)
        if not line.startswith(("---", "+++", "@@"))
    ]


def _without_kernels(lines: list[str]) -> list[str]:
    """The lines of `folded` by operators alone; indices of maxima and attention have a form for each kind of NPU."""
    counts: Counter[tuple[str, str]] = Counter()
    part = ""
    for line in lines:
        if line.startswith("#"):
            part = line.partition(":")[0]
        else:
            count, _, operator = line.strip().partition(" ")
            plain = _INDICES.sub(r"\1, indices)", operator.partition(" -> ")[0])
            counts[part, _ATTENTION.sub(r"\1(\2)", plain)] += int(count)
    return [f"{part} {count:4} {operator}" for (part, operator), count in counts.items()]
