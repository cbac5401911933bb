"""A data set of 16 small pictures, and one short run of each app on it; torchvision as it was."""

from collections.abc import Callable
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


def run_of(app: str) -> Callable[..., Path]:
    """A fixture: the directory of a run of four steps."""

    @pytest.fixture(scope="session", name=f"{app}_run")
    def run(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
        output = tmp_path_factory.mktemp("runs") / app
        assert train(app, shapes, output) == 0
        return output

    return run


mask_rcnn_run, faster_rcnn_run, cascade_rcnn_run, yolact_run, retinanet_run = map(
    run_of, ("mask_rcnn", "faster_rcnn", "cascade_rcnn", "yolact", "retinanet")
)


@pytest.fixture
def torchvision_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """The read-me of det-ops puts our operators in place of torchvision's: undo that after the test."""
    for module in (boxes, poolers, roi_heads, transform):
        for name, value in list(vars(module).items()):
            monkeypatch.setattr(module, name, value)
