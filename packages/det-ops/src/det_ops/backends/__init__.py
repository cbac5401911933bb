"""Which kernel serves which operator on which device, and how to force the reference.

`auto` takes the fast kernel where there is one. `reference` takes the plain PyTorch code everywhere: the oracle of the
tests, and what tracers see on devices without a kernel. The environment variable `DET_OPS_KERNELS` sets the choice at
import, `kernels("reference")` for the length of a block. `host` and `vendor` are `auto` but for NMS on an NPU, whose
reference has hundreds of small steps: one call on the CPU, with a wait; or the vendor's. `triton` makes Triton's
interpreter run the GPU's kernels on the CPU, slowly: for tests, with the environment variable `TRITON_INTERPRET=1`.
"""

import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

try:
    from det_ops import _C
except ImportError as error:  # pragma: no cover - an installation without the extension
    _C = None
    missing_extension: str | None = str(error)
else:
    missing_extension = None

LIBRARY = torch.library.Library("det_ops", "DEF")
"""Where every operator of the package is defined; kept alive as long as the module."""

CHOICES = ("auto", "reference", "host", "vendor", "triton")
_FAST = ("auto", "host", "vendor")

HAS_TRITON = importlib.util.find_spec("triton") is not None
"""Triton comes with PyTorch's CUDA wheels; its kernels are imported when the first tensor asks for them."""

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether Triton interprets kernels; it decides when they are imported."""


def _checked(choice: str, origin: str) -> str:
    if choice not in CHOICES:
        raise ValueError(f"{origin} must be one of {', '.join(CHOICES)}, got {choice!r}")
    if choice == "triton" and not (HAS_TRITON and INTERPRETED):
        raise ValueError(
            f"{origin} is 'triton', which is for Triton's interpreter on the CPU: install Triton and set "
            "TRITON_INTERPRET=1 in the environment; GPUs get the Triton kernels without it"
        )
    return choice


_choice = _checked(os.environ.get("DET_OPS_KERNELS", "auto"), "the environment variable DET_OPS_KERNELS")


FORMS = {
    "host": ("C++", "exact; one call on the CPU, which waits for the NPU; not in a graph"),
    "vendor": (
        "vendor",
        "torchvision_npu's, which waits, or npu_nms_v4, deprecated and not on Ascend 950; ties and rounding are theirs",
    ),
}
"""What `DET_OPS_KERNELS` may choose for NMS on an NPU instead of the reference: the kernel, and what speaks for and
against it."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """One row of the table: `operator` is served by `name` on devices of type `device`, because of `reason`."""

    operator: str
    device: str
    name: str
    reason: str


_table: dict[tuple[str, str], Kernel] = {}


def register(operator: str, device: str, name: str, reason: str) -> None:
    """Add a row to the table `python -m det_ops` prints."""
    _table[operator, device] = Kernel(operator, device, name, reason)


def native(tensor: Tensor) -> bool:
    """Whether the C++ kernels serve operators on the device of `tensor`: on the CPU, unless the reference is forced."""
    return _choice in _FAST and _C is not None and tensor.device.type == "cpu"


def triton(*tensors: Tensor) -> bool:
    """Whether the Triton kernels serve operators on these tensors: on CUDA devices, in all precisions but float64."""
    served = "cpu" if _choice == "triton" else "cuda"
    return (
        HAS_TRITON
        and _choice != "reference"
        and tensors[0].device.type == served
        and all(tensor.dtype != torch.float64 for tensor in tensors)
    )


def npu(tensor: Tensor) -> bool:
    """Whether torch_npu's own kernels may serve operators on the device of `tensor`, unless the reference is forced."""
    return _choice in _FAST and tensor.device.type == "npu"


def on_host(tensor: Tensor) -> bool:
    """Whether NMS on the device of `tensor`, an NPU, was asked to be computed by the CPU."""
    return _choice == "host" and tensor.device.type == "npu"


def vendor(tensor: Tensor) -> bool:
    """Whether NMS on the device of `tensor`, an NPU, was asked to be computed by the vendor's kernels."""
    return _choice == "vendor" and tensor.device.type == "npu"


def float_type(*tensors: Tensor) -> torch.dtype:
    """What the C++ kernels compute in: float64 where an argument has it, else float32 (half precision included)."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


KERNEL_TYPES = {torch.float32: "float32", torch.float64: "float64"}
"""What C++ kernels that do not convert compute in, and the ends of their names."""


def kernel(name: str, dtype: torch.dtype) -> Callable[..., Any]:
    """The C++ kernel `name` for numbers of `dtype`, one of :data:`KERNEL_TYPES`."""
    return getattr(_C, f"{name}_{KERNEL_TYPES[dtype]}")


@contextmanager
def kernels(choice: str) -> Iterator[None]:
    """Force a choice of kernels inside a `with` block, for all threads.

    Args:
        choice: `"auto"`, `"reference"`, `"host"`, `"vendor"` or `"triton"`.

    Raises:
        ValueError: Another choice.
    """
    global _choice
    before, _choice = _choice, _checked(choice, "choice")
    try:
        yield
    finally:
        _choice = before


def table() -> list[Kernel]:
    """All rows as they stand now (forced reference and a missing extension taken into account), by operator."""
    rows = [_table[key] for key in sorted(_table)]
    if _choice == "reference":
        return [Kernel(row.operator, row.device, "reference", "forced: DET_OPS_KERNELS or kernels()") for row in rows]
    if _choice in FORMS:
        name, reason = FORMS[_choice]
        rows = [
            Kernel(row.operator, row.device, name, f"forced: {reason}")
            if row.device == "npu" and row.operator in ("batched_nms", "nms")
            else row
            for row in rows
        ]
    if _choice == "triton":
        interpreted = {row.operator for row in rows if row.name == "Triton"}
        rows = [
            Kernel(row.operator, "cpu", "Triton", "forced; run by Triton's interpreter")
            if row.device == "cpu" and row.operator in interpreted
            else row
            for row in rows
        ]
    unavailable = {}
    if missing_extension is not None:
        unavailable["C++"] = f"extension not importable: {missing_extension}"
    if not HAS_TRITON:
        unavailable["Triton"] = "Triton is not installed (it comes with PyTorch's CUDA wheels)"
    return [
        Kernel(row.operator, row.device, "reference", unavailable[row.name]) if row.name in unavailable else row
        for row in rows
    ]
