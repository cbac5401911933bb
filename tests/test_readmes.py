"""What the read-mes show must run as it stands there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# det-engine's example is tested, with its output, in its own package.
READMES = [ROOT / "README.md", *(p for p in sorted(ROOT.glob("packages/*/README.md")) if p.parent.name != "det-engine")]


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.parent.name)
def test_its_python_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert blocks
    names = {"__name__": "readme"}
    for block in blocks:
        exec(compile(block, str(path), "exec"), names)
