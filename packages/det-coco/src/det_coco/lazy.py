"""Public names that are imported when they are first asked for, since most need torch, which takes seconds to load.

The form is that of the Scientific Python project's SPEC 1. `det_coco` and `det_engine`, which import nothing of ours,
have this module too.
"""

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def lazily(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a package that imports its public names for type checkers alone.

    Args:
        package: its name.
        file: its `__init__.py`, in whose block `if TYPE_CHECKING` the names and their modules stand.
    """
    checked = next(node for node in ast.parse(Path(file).read_text(encoding="utf-8")).body if isinstance(node, ast.If))
    imports = [node for node in checked.body if isinstance(node, ast.ImportFrom)]
    modules = {alias.name: str(node.module) for node in imports for alias in node.names}

    def find(name: str) -> Any:
        try:
            if name in modules:
                value = getattr(import_module(modules[name]), name)
            else:
                value = import_module(f"{package}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{package}.{name}":
                raise
            raise AttributeError(f"module {package!r} has no attribute {name!r}") from None
        setattr(sys.modules[package], name, value)
        return value

    return find, lambda: sorted({*vars(sys.modules[package]), *modules})
