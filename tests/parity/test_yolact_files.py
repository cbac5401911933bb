"""YOLACT's files through the loader that users call: the network that the other tests compare, bit by bit."""

from pathlib import Path

import numpy as np
import pytest
import torch

from apps.common.app import App
from apps.common.weights import load_trained
from apps.yolact.config import RECIPES
from tests.parity.fill import fill
from tests.parity.reference import reference
from tests.parity.test_yolact import build

APP = App(name="yolact", recipes=RECIPES)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["yolact_resnet50", "yolact_plus_resnet50"])
def test_network_of_the_file(name: str, tmp_path: Path) -> None:
    """Deformable blocks, priors, mask IoU and classes follow from the tensors; leftovers of version 1.0 are ignored."""
    shapes = reference(name).json("meta/state_dict_shapes")
    state = {key: torch.from_numpy(np.asarray(fill(key, tuple(shape)))) for key, shape in shapes.items()}
    torch.save(state | {"backbone.layer1.0.conv1.weight": torch.zeros(1)}, tmp_path / "weights")
    trained = load_trained(APP, tmp_path / "weights")
    ours = build(name, "bn")
    assert trained.model.config == ours.config
    assert str(trained.model) == str(ours)
    found, expected = trained.model.state_dict(), ours.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())
    assert trained.recipe.data.size == 550
    assert trained.categories[90] == "toothbrush"
