"""Fixtures: recorded outputs of the reference systems, where the repository around the package has them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

RECORDS = Path(__file__).parents[3] / "tests" / "parity"


def records(name: str) -> Mapping[str, np.ndarray]:
    path = RECORDS / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"{path} is not there: the package is tested outside its repository")
    with np.load(path) as file:
        return dict(file)


@pytest.fixture(scope="session")
def parity() -> Mapping[str, np.ndarray]:
    """Single operators of torchvision, detectron2, mmdetection and maskrcnn-benchmark."""
    return records("ops")


@pytest.fixture(scope="session")
def parity_scene() -> Mapping[str, np.ndarray]:
    """The images and ground truth those outputs were made from (stored with every model)."""
    return records("detectron2_mask_rcnn_R_50_FPN")


@pytest.fixture(params=["auto", "reference"])
def kernels(request: pytest.FixtureRequest):
    """Run a test with the kernels of this machine, and with the references."""
    import det_ops

    with det_ops.kernels(request.param):
        yield request.param
