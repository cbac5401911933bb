"""Who may import whom: the packages against the design, and against what their own pyproject.toml declares."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from itertools import chain

import pytest

from testing import ROOT

ALLOWED = {
    "det_ops": set(),
    "det_backbones": set(),
    "det_heads": {"det_ops", "det_backbones"},
    "det_coco": set(),
    "det_models": {"det_ops", "det_backbones", "det_heads", "det_coco"},
    "det_engine": set(),
}
OURS = set(ALLOWED)
# Where the distribution's name is not the module's.
MODULES = {"pillow": "PIL", "pyyaml": "yaml"}
# Imported where its absence is explained to the user.
OPTIONAL = {"timm", "torch_npu", "torchvision", "triton"}

PACKAGES = sorted((ROOT / "packages").glob("*/src/*/__init__.py"))
SOURCES = {init.parent.name: sorted(init.parent.rglob("*.py")) for init in PACKAGES}


def imported(source: str, package: str) -> Iterator[tuple[int, str]]:
    """(line, top-level module) of every import, those inside functions included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, package if node.level else (node.module or "").partition(".")[0]
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) in ("importlib.import_module", "import_module", "__import__")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield node.lineno, str(node.args[0].value).partition(".")[0]


def outside(package: str) -> dict[str, list[str]]:
    """Every module a package imports from outside itself and the standard library, and where."""
    found: dict[str, list[str]] = {}
    for file in SOURCES[package]:
        for line, module in imported(file.read_text(), package):
            if module != package and module not in sys.stdlib_module_names:
                found.setdefault(module, []).append(f"{file.relative_to(ROOT)}:{line}")
    return found


def declared(package: str, *, extras: bool = True) -> set[str]:
    """Modules of the distributions that a package's pyproject.toml depends on, always or for an extra."""
    file = ROOT / "packages" / package.replace("_", "-") / "pyproject.toml"
    project = tomllib.loads(file.read_text())["project"]
    optional = project.get("optional-dependencies", {}).values() if extras else ()
    texts = chain(project["dependencies"], *optional)
    names = [re.split(r"[^\w.-]", text)[0].lower() for text in texts]
    return {MODULES.get(name, name.replace("-", "_")) for name in names}


def test_all_packages_are_looked_at():
    assert set(SOURCES) == OURS
    assert all(len(files) > 5 for files in SOURCES.values())


@pytest.mark.parametrize("package", sorted(OURS))
def test_packages_import_only_the_packages_the_design_allows(package):
    wrong = {module: where for module, where in outside(package).items() if module in OURS - ALLOWED[package]}
    assert not wrong
    assert not {module: where for module, where in outside(package).items() if module in ("apps", "tests", "tools")}


@pytest.mark.parametrize("package", sorted(OURS))
def test_packages_declare_what_they_import_and_nothing_else(package):
    found = outside(package)
    undeclared = {module: where for module, where in found.items() if module not in declared(package) | OPTIONAL}
    assert not undeclared
    assert declared(package, extras=False) - set(found) <= {"tensorboard"}  # torch.utils.tensorboard needs it


@pytest.mark.parametrize("package", sorted(OURS))
def test_declared_siblings_are_ranges_and_allowed(package):
    file = ROOT / "packages" / package.replace("_", "-") / "pyproject.toml"
    for text in tomllib.loads(file.read_text())["project"]["dependencies"]:
        if text.startswith("det-"):
            assert re.split(r"[^\w-]", text)[0].replace("-", "_") in ALLOWED[package]
            assert re.fullmatch(r"det-\w+>=\d+\.\d+,<\d+\.\d+", text), text


@pytest.mark.parametrize("package", sorted(OURS))
def test_package_tests_stay_within_their_package(package):
    """Otherwise the tests of a package that is installed alone would not run."""
    for file in (ROOT / "packages" / package.replace("_", "-") / "tests").rglob("*.py"):
        modules = {module for _, module in imported(file.read_text(), package)}
        assert not modules & (OURS | {"apps", "tests"}) - ALLOWED[package] - {package}, file


def test_only_the_apps_know_the_command_line_of_an_app():
    """An app imports what is common, never another app; what is common imports no app."""
    apps = {main.parent.name for main in (ROOT / "apps").glob("*/__main__.py")}
    assert len(apps) > 3
    for file in (ROOT / "apps").rglob("*.py"):
        own = file.relative_to(ROOT / "apps").parts[0]
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("apps."):
                other = (node.module or "").split(".")[1]
                assert other not in apps - {own}, f"{file.relative_to(ROOT)}:{node.lineno} imports apps.{other}"


@pytest.mark.parametrize(
    ("source", "modules"),
    [
        ("import det_coco.rle as r", {"det_coco"}),
        ("def f():\n    from det_engine.cli import x", {"det_engine"}),
        ("from . import y", {"own"}),
        ("import importlib\nimportlib.import_module('det_heads.config')", {"importlib", "det_heads"}),
    ],
)
def test_the_search_sees_every_form_of_import(source, modules):
    assert {module for _, module in imported(source, "own")} == modules
