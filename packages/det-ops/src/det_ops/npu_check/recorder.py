"""Runs a training step on the simulated NPU and writes down what would trouble a real one, with file and line."""

import os
import re
import sys
import types
from collections import Counter, defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from det_ops.npu_check import facts, simulation
from det_ops.npu_check.simulation import COPIES, NpuCheckError, Simulation, ends, execute, has_host_indices, tensors

Step = Callable[[], object]
Site = tuple[str, int, bool]
"""File, line, and whether the backward pass runs."""
Call = tuple[str, tuple[tuple[torch.Size, torch.dtype], ...]]
"""An operator, and shapes and dtypes of its tensors: what a kernel is compiled for."""

# Frames that are nobody's to change: PyTorch's and ours.
_INSIDE = (f"{Path(torch.__file__).parent}{os.sep}", f"{Path(__file__).parent}{os.sep}", "<frozen ")
_FRAME = re.compile(r'^  File "(.+?)", line (\d+)', flags=re.MULTILINE)
# Kernels that serve any device; others than PyTorch's own consist of calls of its operators.
_ANY_DEVICE = ("PrivateUse1", "CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional")


@dataclass(frozen=True, order=True)
class Finding:
    """What a line of the program does that troubles an NPU.

    Attributes:
        kind: one of `facts.KINDS`.
        file: the line's file.
        line: its number; in the backward pass, that of the forward pass whose gradient it is.
        operator: such as `aten::nonzero`, or the number of operators where there are several.
        backward: whether it happens in the backward pass.
        times: how often in a step, on average.
        detail: what else there is to know.
    """

    kind: str
    file: str
    line: int
    operator: str
    backward: bool
    times: float = field(compare=False)
    detail: str = ""


@dataclass(frozen=True)
class Report:
    """What the check found.

    Attributes:
        findings: by kind, file and line.
        soc: the NPU that the step was held against.
        steps: number of steps that were looked at.
        operators: number of operators of a step that reach the device, on average.
        kernels: number of distinct operators with distinct shapes and dtypes, in all steps.
        new_kernels: how many of them came after the first step.
        error: why the program ended before its time.
    """

    findings: tuple[Finding, ...]
    soc: str
    steps: int
    operators: int
    kernels: int
    new_kernels: int
    error: Exception | None = None


class Recorder(Simulation):
    """Writes down what runs on the device, step by step once the first has begun."""

    def __init__(self, soc: str) -> None:
        super().__init__()
        self._soc = soc
        self.forget()

    def forget(self) -> None:
        """All steps so far."""
        self._operators = 0
        self._found: Counter[tuple[str, str, str, Site]] = Counter()
        self._calls: list[dict[Site, set[Call]]] = []

    def begin_step(self) -> None:
        """What follows belongs to a further step."""
        self._calls.append(defaultdict(set))

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run an operator on the device, as torch_npu would: composed of others unless it has a kernel of its own."""
        name = func._schema.name
        served = name in COPIES or func.is_view or func.name() in facts.native_operators()
        if not served:
            kernels = [kernel for kernel in _ANY_DEVICE if _has(func, kernel)]
            composed = "CompositeImplicitAutograd" if _has(func, "CompositeImplicitAutograd") else None
            if kernels and func.namespace != "aten":
                composed = kernels[0]
            if composed is not None:
                with self:
                    return func._op_dk(getattr(torch._C.DispatchKey, composed), *args, **kwargs)
            served = bool(kernels)
        if self._calls:
            self._record(func, name, args, kwargs, served)
        return execute(func, args, kwargs)

    def vendor(self, name: str) -> NoReturn:
        """An operator of torch_npu itself, which nobody can compute here."""
        if name in facts.DEPRECATED:
            self._add("deprecated", f"npu::{name}")
        if self._soc == "950" and name in facts.NOT_ON_950:
            self._add("soc", f"npu::{name}")
        raise NotImplementedError(f"torch_npu.{name} cannot be computed without an NPU; the check ends here")

    def report(self, error: Exception | None) -> Report:
        """What has been found so far."""
        steps = max(len(self._calls), 1)
        findings: list[Finding] = []
        formats: dict[tuple[Site, str], Counter[str]] = defaultdict(Counter)
        for (kind, operator, detail, site), count in self._found.items():
            if kind == "dtype":
                formats[site, detail][operator] += count
            else:
                findings.append(_finding(kind, site, [operator], count / steps, detail))
        for (site, detail), counts in formats.items():
            findings.append(_finding("dtype", site, counts, counts.total() / steps, detail))
        later: dict[Site, set[Call]] = defaultdict(set)
        for calls in self._calls[1:]:
            for site, seen in calls.items():
                later[site] |= seen - self._calls[0].get(site, set())
        for site, new in later.items():
            if new:
                findings.append(_finding("shapes", site, {name for name, _ in new}, len(new) / (steps - 1), ""))
        kernels: list[set[Call]] = [set().union(*calls.values()) for calls in self._calls] or [set()]
        order = list(facts.KINDS)
        return Report(
            findings=tuple(sorted(findings, key=lambda finding: (order.index(finding.kind), finding))),
            soc=self._soc,
            steps=len(self._calls),
            operators=round(self._operators / steps),
            kernels=len(set().union(*kernels)),
            new_kernels=len(set().union(*kernels[1:]) - kernels[0]),
            error=error,
        )

    def _add(self, kind: str, operator: str, detail: str = "") -> None:
        self._found[kind, operator, detail, _site()] += 1

    def _record(self, func: Any, name: str, args: Any, kwargs: dict[str, Any], served: bool) -> None:
        given = tensors((args, kwargs))
        if not func.is_view:
            self._operators += 1
            self._calls[-1][_site()].add((func.name(), tuple((leaf.shape, leaf.dtype) for leaf in given)))
        if not served:
            self._add("cpu", func.name())
        if not facts.DYNAMIC.isdisjoint((name, func.name())):
            self._add("dynamic", name)
        elif name in facts.INDEXING and any(leaf.dtype in (torch.bool, torch.uint8) for leaf in tensors(args[1])):
            self._add("dynamic", name, "with a mask")
        source, target = ends(name, args, kwargs) if name in COPIES else (True, True)
        if name in facts.READS or (source and not target):
            self._add("read", name)
        for argument in facts.READS_OF_ARGUMENTS.get(name, ()):
            if isinstance(kwargs.get(argument), Tensor):
                self._add("read", name, argument)
        if has_host_indices(name, args) or (target and not source and not _non_blocking(args, kwargs)):
            self._add("copy", name)
        if not func.is_view:
            for dtype in {leaf.dtype for leaf in given}:
                if dtype in facts.SLOW_DTYPES or (dtype == torch.bfloat16 and self._soc == "910ProB"):
                    self._add("dtype", name, str(dtype).removeprefix("torch."))


def check(build_step: Callable[[torch.device], Step], *, steps: int = 3, soc: str = "910B") -> Report:
    """Run a training step on a simulated NPU, and find what would trouble a real one.

    From then on this process has a device `npu` whose tensors are computed by the CPU; that cannot be undone.

    Args:
        build_step: is called with the device, and returns the step: a function without arguments that does what the
            training does with a batch: forward, backward, optimizer. The step is called `steps` + 1 times, best with
            batches that differ; the first time, when caches and the optimizer's state are made, does not count.
        steps: how many steps to look at.
        soc: one of `facts.SOCS`.

    Raises:
        NpuCheckError: an SoC that is not known, less than one step, a `build_step` that does not return a function, a
            step that does nothing on the device, or a process in which torch_npu itself is loaded.
    """
    if soc not in facts.SOCS:
        raise NpuCheckError(f"soc must be one of {', '.join(facts.SOCS)}, got {soc!r}")
    if steps < 1:
        raise NpuCheckError(f"steps must be at least 1, got {steps}")
    simulation.install(f"Ascend{soc}")
    recorder = Recorder(soc)
    sys.modules["torch_npu"] = _TorchNpu(recorder)
    error = None
    # In one thread the stack of a gradient's operator leads to the call of backward; anomaly mode keeps the stack of
    # the operator whose gradient it is.
    with (
        torch.autograd.set_multithreading_enabled(False),
        torch.autograd.set_detect_anomaly(True, check_nan=False),
        simulation.active(recorder),
    ):
        step = build_step(torch.device("npu", 0))
        if not callable(step):
            raise NpuCheckError(f"build_step must return the step, a function without arguments, got {step!r}")
        try:
            recorder.begin_step()
            step()
            recorder.forget()
            for _ in range(steps):
                recorder.begin_step()
                step()
        except Exception as raised:
            error = raised
    report = recorder.report(error)
    if error is None and not report.operators:
        raise NpuCheckError("the step does nothing on the device: put model and batch on the one that build_step gets")
    return report


def _finding(kind: str, site: Site, operators: Collection[str], times: float, detail: str) -> Finding:
    file, line, backward = site
    name = next(iter(operators)) if len(operators) == 1 else f"{len(operators)} operators"
    return Finding(kind, file, line, name, backward, times, detail)


class _TorchNpu(types.ModuleType):
    """Stands for the package in programs that import it."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__("torch_npu")
        self.__spec__ = ModuleSpec("torch_npu", None)
        self.npu = torch.get_device_module("npu")
        self._recorder = recorder

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if not name.startswith("npu_"):
            raise AttributeError(f"the check knows nothing of torch_npu.{name}")
        return lambda *_, **__: self._recorder.vendor(name)


def _has(func: Any, kernel: str) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), kernel)


def _non_blocking(args: Any, kwargs: dict[str, Any]) -> bool:
    return bool(kwargs.get("non_blocking") or (len(args) > 2 and args[2] is True))


def _site() -> Site:
    """The line outside PyTorch that the running operator belongs to."""
    frame = sys._getframe(1)
    site = None
    while frame is not None:
        file = frame.f_code.co_filename
        if frame.f_code.co_name == "_engine_run_backward" and file.startswith(_INSIDE):
            site = _forward_site()
        elif not file.startswith(_INSIDE):
            site = (file, frame.f_lineno, torch._C._current_autograd_node() is not None)
        if site is not None:
            return site
        frame = frame.f_back
    return ("?", 0, False)


def _forward_site() -> Site | None:
    """The line of the forward pass whose gradient is being computed, None for the accumulation of gradients."""
    node: Any = torch._C._current_autograd_node()
    stack = "" if node is None else "".join(node.metadata.get("traceback_", ()))
    outside = [(file, int(line), True) for file, line in _FRAME.findall(stack) if not file.startswith(_INSIDE)]
    return outside[-1] if outside else None
