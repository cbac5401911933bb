"""Real pictures, which are not part of the repository."""

import os
from pathlib import Path

import pytest

from testing import ROOT


def photographs(name: str) -> Path:
    """The data set of that name, `coco_mini` or `pennfudan`; without it the test is skipped, and says so."""
    folder = Path(os.environ.get("DET_TEST_DATA", ROOT.parent / "shared" / "data")) / name
    if not folder.is_dir():
        pytest.skip(f"no photographs: {folder} does not exist; set DET_TEST_DATA")
    return folder
