"""`python -m det_ops.npu_check my_module:build_step`: what the step would meet on an Ascend NPU."""

import argparse
import dataclasses
import importlib
import json
import sys
import traceback
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

from det_ops.npu_check import facts, simulation
from det_ops.npu_check.recorder import Finding, Report, check
from det_ops.npu_check.simulation import NpuCheckError

EPILOG = """
build_step(device) returns the step: a function without arguments that does what your training does with a batch, on
that device: forward, backward, optimizer. Let each call take another batch, so that the check sees what changes.

Exit status: 0 nothing found, 1 something found (or the step raised an exception), 2 wrong use.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the check that the arguments describe; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m det_ops.npu_check",
        description="Finds, without an NPU, what a PyTorch training step would meet on one, with file and line.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("step", metavar="MODULE:FUNCTION", help="what builds the step; the module is looked for here")
    parser.add_argument("--steps", type=int, default=3, help="how many to look at, after a first one (default 3)")
    parser.add_argument("--soc", choices=facts.SOCS, default="910B", help="the Ascend generation (default 910B)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    try:
        simulation.install(f"Ascend{options.soc}")
        report = check(_build_step(options.step), steps=options.steps, soc=options.soc)
    except NpuCheckError as error:
        parser.error(str(error))
    print(json.dumps(as_json(report), indent=1) if options.json else as_text(report))
    if report.error is not None:
        traceback.print_exception(report.error)
    return int(bool(report.findings or report.error))


def as_json(report: Report) -> dict[str, Any]:
    """The report in JSON's types."""
    error = None if report.error is None else f"{type(report.error).__name__}: {report.error}"
    return dataclasses.asdict(dataclasses.replace(report, error=None)) | {"error": error}


def as_text(report: Report) -> str:
    """The report as a table, one part per kind of finding."""
    lines = [
        f"{_count(len(report.findings), 'finding')} for an Ascend {report.soc} in {_count(report.steps, 'step')} of "
        f"{_count(report.operators, 'operator')}",
        f"{_count(report.kernels, 'kernel')} by operator, shapes and dtypes; new after the first step: "
        f"{report.new_kernels}",
    ]
    width = max((len(_place(finding)) for finding in report.findings), default=0)
    for kind, findings in groupby(report.findings, key=lambda finding: finding.kind):
        lines += ["", f"{kind}: {facts.KINDS[kind]}"]
        for finding in findings:
            notes = ", ".join(filter(None, (finding.detail, "backward" if finding.backward else "")))
            what = f"{finding.operator} ({notes})" if notes else finding.operator
            lines.append(f"  {_place(finding):{width}}  {finding.times:6.4g} x {what}")
    return "\n".join(lines)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _place(finding: Finding) -> str:
    """File and line, seen from here, or from where Python finds modules."""
    file = Path(finding.file)
    roots = [Path.cwd(), *sorted((Path(path) for path in sys.path if path), key=lambda path: -len(path.parts))]
    root = next((root for root in roots if file.is_relative_to(root)), None)
    return f"{file if root is None else file.relative_to(root)}:{finding.line}"


def _build_step(name: str) -> Callable:
    """The function that `module:function` names.

    Raises:
        NpuCheckError: there is none.
    """
    module, _, function = name.partition(":")
    if not function:
        raise NpuCheckError(f"what builds the step must be given as module:function, got {name!r}")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), function, None)
    except ModuleNotFoundError as error:
        if error.name is not None and not f"{module}.".startswith(f"{error.name}."):
            raise  # a module that this one imports
        raise NpuCheckError(f"there is no module {module!r} here or among the installed ones") from error
    if not callable(found):
        raise NpuCheckError(f"module {module!r} has no function {function!r}")
    return found


if __name__ == "__main__":
    sys.exit(main())
