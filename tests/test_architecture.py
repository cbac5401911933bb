"""The page on the house: its picture is that of the imports, and its examples run as they stand there."""

import re

import pytest

from testing import ROOT
from testing.processes import python
from testing.readmes import python_blocks
from tests.test_layering import ALLOWED, OURS

PAGE = ROOT / "docs" / "architecture.md"
TITLES = re.findall(r"^### An? (.+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
EXAMPLES = dict(zip(TITLES, python_blocks(PAGE), strict=True))


def test_the_picture_is_that_of_the_imports():
    """Those that tests/test_layering.py allows."""
    drawn = re.findall(r"^    (\w+) --> (\w+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    allowed = {"apps": OURS, **ALLOWED}
    assert sorted(drawn) == sorted((one, other) for one, others in allowed.items() for other in others)


def test_there_are_six_ways_to_extend_it():
    assert set(EXAMPLES) == {"backbone", "head", "data format", "operator", "recipe", "augmentation"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_runs(name, tmp_path):
    """In a process of its own, since it may register what other tests would find."""
    (tmp_path / "example.py").write_text(EXAMPLES[name], encoding="utf-8")
    ended = python("example.py", folder=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
