"""A data set of 16 small pictures, and one short run of each app on it; torchvision as it was."""

from pathlib import Path

import pytest
from torchvision.models.detection import roi_heads, transform
from torchvision.ops import boxes, poolers

from det_coco import synthetic_dataset
from testing.command_line import train


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded data set's generator: 12 pictures to train on, 4 held out."""
    return synthetic_dataset(tmp_path_factory.mktemp("shapes") / "data", train_images=12, val_images=4, size=96)


@pytest.fixture(scope="session")
def mask_rcnn_run(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a run of four steps."""
    output = tmp_path_factory.mktemp("runs") / "mask_rcnn"
    assert train("mask_rcnn", shapes, output) == 0
    return output


@pytest.fixture(scope="session")
def faster_rcnn_run(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a run of four steps."""
    output = tmp_path_factory.mktemp("runs") / "faster_rcnn"
    assert train("faster_rcnn", shapes, output) == 0
    return output


@pytest.fixture(scope="session")
def cascade_rcnn_run(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a run of four steps."""
    output = tmp_path_factory.mktemp("runs") / "cascade_rcnn"
    assert train("cascade_rcnn", shapes, output) == 0
    return output


@pytest.fixture(scope="session")
def yolact_run(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a run of four steps."""
    output = tmp_path_factory.mktemp("runs") / "yolact"
    assert train("yolact", shapes, output) == 0
    return output


@pytest.fixture
def torchvision_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """The read-me of det-ops puts our operators in place of torchvision's: undo that after the test."""
    for module in (boxes, poolers, roi_heads, transform):
        for name, value in list(vars(module).items()):
            monkeypatch.setattr(module, name, value)
