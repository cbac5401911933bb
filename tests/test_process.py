"""Only commands change the process that they run in, and early enough."""

import sys

import pytest

from testing.processes import environment, start_python

# How much memory glibc has mapped block by block (mallinfo2), before and after a block of 64 MiB.
MAPPED = """
import ctypes
class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in ("a", "b", "c", "blocks", "bytes", "d", "e", "f", "g", "h")]
def mapped():
    function = ctypes.CDLL(None).mallinfo2
    function.restype = Info
    return function().bytes
before = mapped()
block = bytearray(1 << 26)
own = mapped() - before >= 1 << 26
"""
LIBRARY = f"""
import os
import apps, apps.common.main, det_models, det_engine
assert not {{"OMP_WAIT_POLICY", "TORCH_DEVICE_BACKEND_AUTOLOAD"}} & set(os.environ), os.environ
{MAPPED}
assert own, "the allocator was changed"
"""
COMMAND = f"""
import importlib.abc, os, runpy, sys
seen = {{}}
class Watch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch":
            seen.update(os.environ)
sys.meta_path.insert(0, Watch())
sys.argv = ["mask_rcnn", "eval", "--weights", "missing.pt"]  # which loads torch, and ends there
try:
    runpy.run_module("apps.mask_rcnn", run_name="__main__")
except SystemExit as end:
    assert end.code == 2, end.code
assert seen["OMP_WAIT_POLICY"] == "passive", "torch was loaded before"
assert seen["TORCH_DEVICE_BACKEND_AUTOLOAD"] == "0"
{MAPPED}
assert not own, "glibc maps large blocks by themselves"
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks glibc")
@pytest.mark.parametrize("source", [LIBRARY, COMMAND], ids=["library", "command"])
def test_the_process_of(source: str) -> None:
    names = ("OMP_WAIT_POLICY", "TORCH_DEVICE_BACKEND_AUTOLOAD")
    variables = {name: value for name, value in environment().items() if name not in names}
    process = start_python("-c", source, env=variables)
    _, error = process.communicate(timeout=600)
    assert process.returncode == 0, error
