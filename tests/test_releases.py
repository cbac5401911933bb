"""What a release needs: metadata, fragments, workflow, addresses."""

import re
import shutil
import tomllib

import pytest

from testing import ROOT
from tools import add_urls, release

PACKAGES = sorted(path.parent for path in ROOT.glob("packages/*/pyproject.toml"))
WORKFLOWS = sorted((ROOT / ".github").rglob("*.yml"))


def version_of(root, package):
    about = root / "packages" / package / "src" / package.replace("-", "_") / "__about__.py"
    return re.fullmatch(r'__version__ = "(\d+\.\d+\.\d+)"\n', about.read_text(encoding="utf-8"))[1]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_metadata(package):
    project = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == package.name
    assert {"Typing :: Typed", "Programming Language :: Python :: 3.11"} <= set(project["classifiers"])
    assert ("Programming Language :: C++" in project["classifiers"]) == (package / "CMakeLists.txt").exists()
    assert project["classifiers"] == sorted(project["classifiers"])
    assert project["keywords"]
    for other in project["dependencies"]:
        if other.startswith("det-"):  # ranges, so that pip does not mix what does not fit
            name = re.match(r"[\w-]+", other)[0]
            assert other == name + release.allowed(version_of(ROOT, name))


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_fragments_are_named_as_towncrier_wants_them(package):
    """It passes over others in silence."""
    fragments = [path.name for path in (package / "changelog.d").iterdir() if path.name != ".gitkeep"]
    wrong = [name for name in fragments if not re.fullmatch(r"\+[\w-]+\.(added|changed|fixed|removed)\.md", name)]
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


@pytest.fixture
def root(tmp_path):
    """What a release changes, of all packages."""
    for package in PACKAGES:
        copied = tmp_path / "packages" / package.name
        about = f"src/{package.name.replace('-', '_')}/__about__.py"
        (copied / about).parent.mkdir(parents=True)
        for name in ("pyproject.toml", "CHANGELOG.md", about):
            shutil.copy(package / name, copied / name)
        shutil.copytree(package / "changelog.d", copied / "changelog.d")
    return tmp_path


def call(root, monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["release", *arguments, "--root", str(root)])
    return release.main()


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_a_release_collects_all_fragments_of_its_package(package, root, monkeypatch, capsys):
    folder = root / "packages" / package.name
    texts = [" ".join(path.read_text(encoding="utf-8").split()) for path in (folder / "changelog.d").glob("*.md")]
    assert len(texts) > 3
    assert call(root, monkeypatch, package.name, "0.2.0") == 0
    assert f"git tag {package.name}-v0.2.0" in capsys.readouterr().out
    changelog = (folder / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\n## {package.name} 0.2.0 (" in changelog
    assert not list((folder / "changelog.d").glob("*.md"))
    assert all(text in " ".join(changelog.split()) for text in texts)
    assert version_of(root, package.name) == "0.2.0"
    needed = [
        text
        for other in root.glob("packages/*/pyproject.toml")
        for text in tomllib.loads(other.read_text(encoding="utf-8"))["project"]["dependencies"]
        if text.startswith(f"{package.name}>")
    ]
    assert set(needed) <= {f"{package.name}>=0.2,<0.3"}
    assert needed or package.name in ("det-models", "det-engine")


def test_a_second_release_stands_above_the_first(root, monkeypatch):
    folder = root / "packages" / "det-heads"
    assert call(root, monkeypatch, "det-heads", "0.1.0") == 0  # what is there now, which nobody has released
    assert call(root, monkeypatch, "det-heads", "0.1.1") == 2
    (folder / "changelog.d" / "+more.fixed.md").write_text("More.\n")
    assert call(root, monkeypatch, "det-heads", "0.1.1") == 0
    titles = re.findall(r"^## det-heads (\S+)", (folder / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert titles == ["0.1.1", "0.1.0"]


@pytest.mark.parametrize(
    ("version", "message"), [("0.2", "three numbers"), ("0.0.9", "at 0.1.0 already"), ("v0.2.0", "three numbers")]
)
def test_what_is_no_new_version_is_refused(version, message, root, monkeypatch, capsys):
    assert call(root, monkeypatch, "det-ops", version) == 2
    assert message in capsys.readouterr().err
    assert version_of(root, "det-ops") == "0.1.0"
