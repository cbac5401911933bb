"""YOLACT's files through the loader that users call: the network that the other tests compare, bit by bit."""

from pathlib import Path

import numpy as np
import pytest
import torch

from det_models import open_weights
from tests.parity.fill import fill
from tests.parity.reference import reference
from tests.parity.test_yolact import build


@pytest.mark.slow
@pytest.mark.parametrize("name", ["yolact_resnet50", "yolact_plus_resnet50"])
def test_network_of_the_file(name: str, tmp_path: Path) -> None:
    """Deformable blocks, priors, mask IoU and classes follow from the tensors; leftovers of version 1.0 are ignored."""
    shapes = reference(name).json("meta/state_dict_shapes")
    state = {key: torch.from_numpy(np.asarray(fill(key, tuple(shape)))) for key, shape in shapes.items()}
    torch.save(state | {"backbone.layer1.0.conv1.weight": torch.zeros(1)}, tmp_path / "weights")
    weights = open_weights(tmp_path / "weights")
    model = weights.build()
    ours = build(name, "bn")
    assert model.config == ours.config
    assert str(model) == str(ours)
    found, expected = model.state_dict(), ours.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())
    assert weights.network().buckets == ((550, 550),)
    assert weights.categories[90] == "toothbrush"
