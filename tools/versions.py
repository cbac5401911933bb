"""Write into README.md with which versions the packages are tested; `tests/test_versions.py` demands that it is so.

    hatch run python tools/versions.py

They are read where the tests take them from: `constraints.txt`, the least versions that det-ops declares, the newest
that `check_wheels.py` knows, and the release of torch_npu in `hatch.toml`.
"""

import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
HEAD = "| tested | PyTorch | torchvision | NumPy | by |\n|---|---|---|---|---|\n"
TABLE = re.compile(re.escape(HEAD) + r"(?:\|.*\n)*")


def table() -> str:
    """The table in Markdown."""
    pinned = dict(line.split("==") for line in _text("constraints.txt").splitlines() if "==" in line)
    project = tomllib.loads(_text("packages/det-ops/pyproject.toml"))
    least = dict(
        line.split(">=") for line in (*project["project"]["dependencies"], *project["dependency-groups"]["test"])
    )
    newest = _found(r'^NEWEST = "(.+)"', "tools/check_wheels.py")
    torch_npu = _found(r"torch_npu==([\d.]+)\.\*", "hatch.toml")
    rows = [
        ("the oldest", least["torch"], least["torchvision"], least["numpy"], "`hatch run wheels`"),
        ("what we develop with", pinned["torch"], pinned["torchvision"], "newest", "`hatch run test`"),
        ("the newest", newest, pinned["torchvision"], "newest", "`hatch run wheels`"),
        (f"torch_npu {torch_npu}", pinned["torch"], pinned["torchvision"], "newest", "`hatch run npu:check`"),
    ]
    return HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _found(pattern: str, name: str) -> Any:
    found = re.search(pattern, _text(name), re.MULTILINE)
    assert found is not None, f"{name} has no {pattern}"
    return found[1]


if __name__ == "__main__":
    README.write_text(TABLE.sub(lambda _: table(), README.read_text(encoding="utf-8")), encoding="utf-8")
