"""What the read-mes show must run as it stands there."""

import pytest

from testing import ROOT
from testing.readmes import run_blocks

# det-engine's example is tested, with its output, in its own package.
READMES = [ROOT / "README.md", *(p for p in sorted(ROOT.glob("packages/*/README.md")) if p.parent.name != "det-engine")]


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.parent.name)
def test_its_python_runs(path, tmp_path, monkeypatch, torchvision_is_restored):
    monkeypatch.chdir(tmp_path)
    run_blocks(path)
