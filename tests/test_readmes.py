"""The Python that pages show must run as it stands there."""

import json
import shutil
from pathlib import Path

import pytest

from det_backbones import read_weights
from det_coco import synthetic_dataset
from testing import ROOT
from testing.foreign_files import CLASSES
from testing.pages import PAGES
from testing.readmes import python_blocks, run_blocks
from testing.trained import SYSTEMS, write_example

# Pages whose Python has a test of its own.
ELSEWHERE = {
    "README.md": "tests/test_readmes.py",
    "docs/architecture.md": "tests/test_architecture.py",
    "packages/det-engine/README.md": "packages/det-engine/tests/test_readme.py",
    "packages/det-models/README.md": "tests/test_readmes.py",
    "packages/det-ops/ADDING.md": "packages/det-ops/tests/test_adding.py",
}
OTHERS = [page for page in PAGES if python_blocks(page) and page.relative_to(ROOT).as_posix() not in ELSEWHERE]
MODELS = ROOT / "packages" / "det-models" / "README.md"
# A training of two steps on twelve pictures.
SHORTER = {
    'synthetic_dataset("shapes")': 'synthetic_dataset("shapes", train_images=12, val_images=4, size=96)',
    "BackboneConfig(depth=18,": "BackboneConfig(depth=18, width=8, pyramid_channels=16,",
    "milestones=(600,), steps=800": "milestones=(), steps=2",
}


@pytest.fixture
def example(tmp_path, monkeypatch):
    """A folder with the detector, pictures and annotations that pages speak of."""
    monkeypatch.chdir(tmp_path)
    write_example(tmp_path)
    data = synthetic_dataset(tmp_path / "data", train_images=8, val_images=3, size=96)
    shutil.copy(data / "annotations" / "instances_train.json", "annotations.json")


@pytest.mark.parametrize("page", OTHERS, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_its_python_runs(page, example, capsys, torchvision_is_restored):
    run_blocks(page, {'["person"]': '["disc"]'})
    if page.stem == "report":
        assert Path("report.html").exists()
        assert "boxes: half finds 0 objects that the first misses" in capsys.readouterr().out
    if page.stem == "questions":
        left = json.loads(Path("some_classes.json").read_text())
        assert {category["name"] for category in left["categories"]} == {"disc", "star"}


def test_what_runs_elsewhere_has_a_test_there():
    for page, test in ELSEWHERE.items():
        assert python_blocks(ROOT / page), page
        assert Path(page).name in (ROOT / test).read_text(encoding="utf-8"), (page, test)


def test_the_first_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_example(tmp_path)
    run_blocks(ROOT / "README.md", {'"runs/mask_rcnn/NAME"': '"detector.pth"'})
    assert (tmp_path / "street.png").exists()


@pytest.mark.parametrize("system", SYSTEMS)
def test_prediction_with_the_files_of_five_systems(system, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_example(tmp_path, system)
    exec(compile(python_blocks(MODELS)[0], str(MODELS), "exec"), names := {"__name__": "page"})
    assert [Path(found.source).name for found in names["detector"].predict("pictures")] == ["0.jpg", "1.jpg", "2.jpg"]
    assert (tmp_path / "found.png").exists()


def test_training_from_python(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_example(tmp_path)
    assert set(SHORTER) == {text for text in SHORTER if text in MODELS.read_text()}
    found = run_blocks(MODELS, SHORTER)["found"]
    assert set(found.categories.values()) == set(CLASSES)
    assert read_weights("runs/shapes/checkpoints/last.pt").metadata["step"] == 2
