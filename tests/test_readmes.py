"""What the read-mes show must run as it stands there."""

import pytest

from tests.readmes import ROOT, python_blocks

# det-engine's example is tested, with its output, in its own package.
READMES = [ROOT / "README.md", *(p for p in sorted(ROOT.glob("packages/*/README.md")) if p.parent.name != "det-engine")]


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.parent.name)
def test_its_python_runs(path, tmp_path, monkeypatch, torchvision_is_restored):
    monkeypatch.chdir(tmp_path)
    blocks = python_blocks(path)
    assert blocks
    names = {"__name__": "readme"}
    for block in blocks:
        exec(compile(block, str(path), "exec"), names)
