"""Which kernel serves which function on which device, and why: derived from the operators and the backends."""

from typing import NamedTuple

from det_ops import backends
from det_ops._operator import FUNCTIONS, Function
from det_ops.backends import npu

FORCED = "forced: DET_OPS_KERNELS or kernels()"


class Row(NamedTuple):
    """`function` is served by `kernel` on devices of type `device`, because of `reason`."""

    function: str
    device: str
    kernel: str
    reason: str


def table() -> list[Row]:
    """All rows as they stand now, a forced reference and what is missing taken into account, by function."""
    every = ((name, device) for name in sorted(FUNCTIONS) for device in backends.BACKENDS)
    return [Row(name, device, *_served(FUNCTIONS[name], device)) for name, device in every]


def _served(function: Function, device: str) -> tuple[str, str]:
    """Kernel and reason."""
    choice = backends.chosen
    if choice == "reference":
        return "reference", FORCED
    if function.operator == "nms" and device == "npu" and choice in npu.FORMS:
        kernel, reason = npu.FORMS[choice]
        return kernel, f"forced: {reason}"
    if function.host and device != "cpu":
        return _served(function, "cpu")[0], function.fallback
    ours, active = backends.BACKENDS[device], backends.serving.get(device)
    if active is not None and function.operator in active.kernels:
        return active.name, active.kernels[function.operator] if active is ours else "forced; run by its interpreter"
    if ours.missing is not None and function.operator in ours.kernels:
        return "reference", ours.missing
    return "reference", function.fallback
