"""The compiled part of the package, where there was a C++ compiler when it was installed."""

from importlib import import_module
from typing import Any

compiled: Any
try:
    compiled = import_module("det_coco._C")
except ImportError:
    compiled = None
