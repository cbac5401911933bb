"""Steps 1: the rule that makes the weights, and the names of all tensors."""

import math

import numpy as np
import pytest
import torch

from det_models.checkpoints import detect_system, from_reference, reference_names, to_reference
from tests.parity.fill import fill
from tests.parity.systems import MASK_RCNNS, Case


@pytest.mark.parametrize("case", MASK_RCNNS, ids=str)
def test_fill(case: Case) -> None:
    for name, (shape, total, absolute, first) in case.file.json("meta/weight_check").items():
        if "cell_anchors" in name:
            continue
        weights = fill(name, shape).astype(np.float64)
        assert weights.ravel()[:3].tolist() == pytest.approx(first, rel=1e-6)
        assert weights.sum() == pytest.approx(total, abs=1e-6 * absolute)
        assert np.abs(weights).sum() == pytest.approx(absolute, rel=1e-6)


@pytest.mark.parametrize("case", MASK_RCNNS, ids=str)
def test_every_tensor_has_its_place(case: Case) -> None:
    """All tensors of the reference's state dict are ours by another name; none is left over on either side."""
    shapes = case.file.json("meta/state_dict_shapes")
    # How often statistics that are frozen have been updated.
    shapes = {name: shape for name, shape in shapes.items() if not name.endswith("num_batches_tracked")}
    theirs = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    assert detect_system(theirs) == case.system
    ours = from_reference(theirs)
    with torch.device("meta"):
        model = case.build()
    assert {name: tensor.shape for name, tensor in ours.items()} == {
        name: tensor.shape for name, tensor in model.state_dict().items()
    }
    assert set(shapes) - set(reference_names(ours, case.system).values()) == {
        name for name in shapes if "cell_anchors" in name
    }
    assert {name: list(tensor.shape) for name, tensor in to_reference(ours, case.system).items()} == {
        name: shape for name, shape in shapes.items() if "cell_anchors" not in name
    }


@pytest.mark.parametrize("case", MASK_RCNNS, ids=str)
def test_frozen_parameters(case: Case) -> None:
    """The same parameters are trained."""
    with torch.device("meta"):
        model = case.build()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert set(reference_names(trained, case.system).values()) == set(case.file.json("train_all/grad_norms"))
    assert math.prod(len(name) for name in trained) > 0
