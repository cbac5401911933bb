"""The Python that pages show, run as it stands there."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_BLOCK = re.compile(r"^```python\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)


def python_blocks(path: Path) -> list[str]:
    """The Python of a page, block by block; each begins with as many empty lines as stand before it in the page."""
    text = path.read_text(encoding="utf-8")
    return ["\n" * (text.count("\n", 0, block.start()) + 1) + block[1] for block in _BLOCK.finditer(text)]


def run_blocks(path: Path, shorter: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The names that the Python of a page leaves, run from top to bottom; a traceback shows the page's line.

    Args:
        path: The page.
        shorter: Texts of it, and what stands for them in a test that has less time.
    """
    names: dict[str, Any] = {"__name__": "page"}
    blocks = python_blocks(path)
    assert blocks, f"{path} shows no Python"
    for block in blocks:
        for text, other in (shorter or {}).items():
            block = block.replace(text, other)
        exec(compile(block, str(path), "exec"), names)
    return names
