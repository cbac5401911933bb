"""Say whether an installed package has its compiled part: `python tools/check_compiled.py det-ops`."""

import importlib
import sys

_FOUND = {
    "det-ops": lambda: importlib.import_module("det_ops.backends").BACKENDS["cpu"].missing is None,
    "det-coco": lambda: importlib.import_module("det_coco._table").compiled is not None,
}

if __name__ == "__main__":
    package = sys.argv[1]
    if not _FOUND[package]():
        sys.exit(f"{package}: the compiled part is missing")
    print(f"{package}: the compiled part is there")
