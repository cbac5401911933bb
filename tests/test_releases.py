"""What a release needs: metadata, fragments, workflow, addresses."""

import re
import shutil
import tomllib

import pytest

from testing import ROOT
from tools import add_urls

PACKAGES = sorted(path.parent for path in ROOT.glob("packages/*/pyproject.toml"))
WORKFLOWS = sorted((ROOT / ".github").rglob("*.yml"))


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_metadata(package):
    project = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == package.name
    assert {"Typing :: Typed", "Programming Language :: Python :: 3.11"} <= set(project["classifiers"])
    assert ("Programming Language :: C++" in project["classifiers"]) == (package / "CMakeLists.txt").exists()
    assert project["classifiers"] == sorted(project["classifiers"])
    assert project["keywords"]
    for other in project["dependencies"]:
        if other.startswith("det-"):
            assert re.fullmatch(r"det-\w+>=0\.1,<0\.2", other)  # ranges, so that pip does not mix what does not fit


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_fragments_are_named_as_towncrier_wants_them(package):
    """It passes over others in silence."""
    fragments = [path.name for path in (package / "changelog.d").iterdir() if path.name != ".gitkeep"]
    wrong = [name for name in fragments if not re.fullmatch(r"[+\w-]+\.(added|changed|fixed|removed)\.md", name)]
    assert not wrong
    for name in fragments:
        assert (package / "changelog.d" / name).read_text(encoding="utf-8").strip()


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_and_forms_are_yaml(workflow):
    yaml = pytest.importorskip("yaml")
    assert yaml.safe_load(workflow.read_text(encoding="utf-8"))


def test_the_release_offers_every_package_and_publishes_without_a_token():
    yaml = pytest.importorskip("yaml")
    release = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8"))
    choices = release[True]["workflow_dispatch"]["inputs"]["package"]["options"]  # YAML 1.1 reads `on` as True
    assert sorted(choices) == [package.name for package in PACKAGES]
    assert release["jobs"]["publish"]["permissions"] == {"id-token": "write", "attestations": "write"}
    assert "secrets." not in (ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")


def test_addresses_are_those_of_the_repository_that_releases(tmp_path, monkeypatch):
    copied = tmp_path / "packages" / "det-heads" / "pyproject.toml"
    copied.parent.mkdir(parents=True)
    shutil.copy(ROOT / "packages" / "det-heads" / "pyproject.toml", copied)
    for _ in range(2):  # once is enough
        arguments = ["add_urls", "det-heads", "https://example.org/owner/det/", "--root", str(tmp_path)]
        monkeypatch.setattr("sys.argv", arguments)
        add_urls.main()
    project = tomllib.loads(copied.read_text(encoding="utf-8"))["project"]
    assert project["urls"]["Source"] == "https://example.org/owner/det"
    assert project["urls"]["Changelog"] == "https://example.org/owner/det/blob/main/packages/det-heads/CHANGELOG.md"
    assert "dynamic" in project
