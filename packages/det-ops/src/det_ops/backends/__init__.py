"""Kernels by type of device, a folder each, and the choice between them and the references.

`auto` takes the kernels where there are some. `reference` takes the plain PyTorch code everywhere: the oracle of the
tests, and what tracers see on devices without a kernel. The environment variable `DET_OPS_KERNELS` sets the choice at
import, `kernels("reference")` for the length of a block. `host` and `vendor` are `auto` but for NMS on an NPU, whose
reference has hundreds of small steps: one call on the CPU, with a wait; or the vendor's. `triton` makes Triton's
interpreter run the GPU's kernels on the CPU, slowly: for tests, with the environment variable `TRITON_INTERPRET=1`.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from det_ops.backends import cpu, npu, triton
from det_ops.backends._backend import Backend

__all__ = ["BACKENDS", "Backend", "chosen", "kernels", "serving"]

BACKENDS = {backend.device: backend for backend in (cpu.BACKEND, triton.BACKEND, npu.BACKEND)}
"""All of them, by type of device. A new one is added here."""

CHOICES = ("auto", "reference", "host", "vendor", "triton")


USUAL: Mapping[str, Backend] = {device: backend for device, backend in BACKENDS.items() if backend.missing is None}
"""Those that can be used here, by type of device."""


def _backends(name: str, origin: str) -> Mapping[str, Backend]:
    """Those that a choice lets serve, by type of device."""
    if name not in CHOICES:
        raise ValueError(f"{origin} must be one of {', '.join(CHOICES)}, got {name!r}")
    if name == "reference":
        return {}
    if name != "triton":
        return USUAL
    if triton.BACKEND.missing is not None or not triton.INTERPRETED:
        raise ValueError(
            f"{origin} is 'triton', which is for Triton's interpreter on the CPU: install Triton and set "
            "TRITON_INTERPRET=1 in the environment; GPUs get the Triton kernels without it"
        )
    return {"cpu": triton.BACKEND}


chosen = os.environ.get("DET_OPS_KERNELS", "auto")
"""The choice in force."""

serving = _backends(chosen, "the environment variable DET_OPS_KERNELS")
"""The backends whose kernels may serve now, by type of device."""


@contextmanager
def kernels(choice: str) -> Iterator[None]:
    """Force a choice of kernels inside a `with` block, for all threads.

    Args:
        choice: `"auto"`, `"reference"`, `"host"`, `"vendor"` or `"triton"`.

    Raises:
        ValueError: Another choice.
    """
    global chosen, serving
    before = chosen, serving
    chosen, serving = choice, _backends(choice, "choice")
    try:
        yield
    finally:
        chosen, serving = before
