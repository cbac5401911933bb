"""What the check of docstrings finds, and what it lets pass."""

import ast
import re
import sys
from textwrap import dedent

import pytest

from testing import ROOT
from tools import check_docstrings
from tools.check_docstrings import SHAPE, fault_of_shapes, fault_of_summary, public_nodes


@pytest.mark.parametrize(
    "text", ["Area of boxes.", "Computes areas.", "Whether it is there.", "RoIAlign.", "`nms` of all."]
)
def test_a_verb_or_a_noun_phrase(text):
    assert fault_of_summary(text) is None


@pytest.mark.parametrize(
    "text", ["This computes areas.", "As in the paper.", "Where it lies.", "area of boxes.", "It is."]
)
def test_other_beginnings(text):
    assert "begin with a" in str(fault_of_summary(text))


def shapes(source: str) -> str | None:
    (node,) = ast.parse(dedent(source)).body
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    return fault_of_shapes(node, ast.get_docstring(node) or "")


@pytest.mark.parametrize(
    ("source", "missing"),
    [
        ('def f(a: Tensor) -> Tensor:\n    """Area `[N]` of boxes `[N, 4]`."""', None),
        ('def f(a: "Tensor | None", n: int) -> int:\n    """Number in [0, 1]."""', "a"),
        ('def f(a: torch.Tensor) -> float:\n    """Mean.\n\n    Args:\n        a: of any shape.\n    """', None),
        ('def f(a: Tensor) -> Tensor:\n    """Makes `[h, w, 3]` of `[O, H\', W\']`."""', None),
        ('def f(a: Tensor) -> int:\n    """Side of `[height, width]`."""', "a"),
        ('def f(a: Tensor) -> Tensor:\n    """Area.\n\n    Args:\n        a: `[..., 4]`.\n    """', "the result"),
        (
            'def f(a: Tensor, b: Tensor):\n    """`[N]`.\n\n    Args:\n        a: left.\n        b: `[N]`.\n    """',
            "a",
        ),
        ('def f(state: Mapping[str, Tensor]) -> dict[str, np.ndarray]:\n    """Others."""', None),
        ('def f(levels: list[Tensor]) -> tuple[np.ndarray, int]:\n    """Sum of list[str]."""', "levels, the result"),
        ('class A:\n    """A pair.\n\n    Attributes:\n        x: left.\n    """\n    x: Tensor', "x"),
        ('class A:\n    """A pair.\n\n    Attributes:\n        x: scalar.\n    """\n    x: Tensor', None),
    ],
)
def test_shapes(source, missing):
    assert shapes(source) == (missing and f"states no shape of {missing}")


def test_what_is_public(tmp_path):
    package = tmp_path / "own"
    (package / "backends").mkdir(parents=True)
    (package / "__init__.py").write_text("from own._parts import made\nfrom own.whole import A\n")
    (package / "_parts.py").write_text("def made(): ...\ndef hidden(): ...\n")
    (package / "backends" / "whole.py").write_text("class A: ...\n")
    source = "class A:\n    def f(self): ...\n    def _g(self): ...\n@overload\ndef h(): ...\ndef _k(): ...\n"
    (package / "whole.py").write_text(source)
    assert [name for _, name, _ in public_nodes(package)] == ["made", "A", "A.f"]


def test_ruffs_findings_and_the_floors(tmp_path, monkeypatch, capsys):
    package = tmp_path / "packages" / "det-own" / "src" / "det_own"
    package.mkdir(parents=True)
    (package / "module.py").write_text(
        'def f(a):\n    """Sum.\n\n    Args:\n        b: left.\n    """\n    raise ValueError\n'
        'def g(a):\n    """Sum without end"""\n'
    )
    monkeypatch.setattr(check_docstrings, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["check_docstrings"])
    for floor, status in ((50, 0), (60, 1)):
        floors = f"summary = {floor}, arguments = 0, raises = 0"
        (tmp_path / "pyproject.toml").write_text(f"[tool.docstrings]\ndet-own = {{ {floors} }}\n")
        assert check_docstrings.main() == status
    found = capsys.readouterr().out
    assert found.count("det-own               2            50 %           100 %             0 %             0 %") == 1
    assert found.count("packages/det-own/src/det_own/module.py:8: g summary: First line should end with a period") == 1
    assert "f summary" not in found


def test_symbols_of_shapes_are_in_the_glossary():
    glossary = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8").partition("## Coordinates")[0]
    known = set(re.findall(r"`([A-Z])`", glossary))
    unknown = {
        f"{file.relative_to(ROOT)}: {name}: {symbol}"
        for source in ROOT.glob("packages/*/src/*")
        for file, name, node in public_nodes(source)
        for shape in SHAPE.finditer(ast.get_docstring(node) or "")
        for symbol in re.findall(r"\b[A-Z]\b", shape[0])
        if symbol not in known
    }
    assert not unknown
