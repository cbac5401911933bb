"""What a folder of kernels says of itself."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, eq=False)
class Backend:
    """The kernels for one type of device.

    The kernel of an operator is the function of its name, with its arguments, in the module that is called as the one
    that defines the operator: `det_ops::nms`, defined in `det_ops/nms.py`, is `nms` in `<package>/nms.py`. It is
    imported when the first tensor asks for it.

    Attributes:
        name: What the table of kernels calls it, such as `"C++"`.
        device: Type of the device whose tensors it takes.
        package: Where its modules are, such as `"det_ops.backends.cpu"`.
        kernels: The operators that it has, and what to know of each kernel: its words in the table. The operator of a
            gradient goes with its own.
        float64: Whether its kernels take double precision; else the reference does.
        missing: Why none of them can be used here, or None.
    """

    name: str
    device: str
    package: str
    kernels: Mapping[str, str]
    float64: bool = True
    missing: str | None = None

    def kernel(self, module: str, operator: str) -> Callable[..., Any]:
        """The kernel of `operator`, which `det_ops/<module>.py` defines."""
        return getattr(importlib.import_module(f"{self.package}.{module}"), operator)
