"""Detection operators: one function each, static shapes, fast kernels per device."""

from det_ops.__about__ import __version__
from det_ops._kernels import kernels

__all__ = [
    "__version__",
    "kernels",
]
