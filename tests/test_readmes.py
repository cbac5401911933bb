"""What the read-mes show must run as it stands there."""

from pathlib import Path

import pytest

from det_backbones import read_weights
from testing import ROOT
from testing.foreign_files import CLASSES
from testing.readmes import python_blocks, run_blocks
from testing.trained import SYSTEMS, write_example

# det-engine's example is tested, with its output, in its own package; that of det-models wants files.
APART = ("det-engine", "det-models")
READMES = [p for p in sorted(ROOT.glob("packages/*/README.md")) if p.parent.name not in APART]
READMES += [ROOT / "docs" / "formats.md", ROOT / "docs" / "augmentation.md"]
MODELS = ROOT / "packages" / "det-models" / "README.md"
# A training of two steps on twelve pictures.
SHORTER = {
    'synthetic_dataset("shapes")': 'synthetic_dataset("shapes", train_images=12, val_images=4, size=96)',
    "BackboneConfig(depth=18,": "BackboneConfig(depth=18, width=8, pyramid_channels=16,",
    "milestones=(600,), steps=800": "milestones=(), steps=2",
}


@pytest.mark.parametrize("path", READMES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_its_python_runs(path, tmp_path, monkeypatch, torchvision_is_restored):
    monkeypatch.chdir(tmp_path)
    run_blocks(path)


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


def test_reports_from_python(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run_blocks(ROOT / "docs" / "report.md")
    assert (tmp_path / "report.html").exists()
    assert "boxes: half finds 0 objects that the first misses" in capsys.readouterr().out
