"""The copy of a detector that infers."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from apps.cascade_rcnn.config import RECIPES as CASCADE_RCNN
from apps.mask_rcnn.config import RECIPES as MASK_RCNN
from apps.yolact.config import RECIPES as YOLACT
from det_backbones import FrozenBatchNorm2d
from det_heads import BoxHead
from det_models import Detector, build
from det_models.inference import optimize_for_inference
from det_ops import Conv2d
from det_ops.backends.cpu import winograd

MODELS: dict[str, Callable[[], Detector]] = {
    "mask_rcnn": lambda: build(MASK_RCNN["tiny"]().model()),
    "cascade_rcnn": lambda: build(CASCADE_RCNN["tiny"]().model()),
    "yolact": lambda: build(YOLACT["tiny"]().model()),
}


def trained(name: str) -> Detector:
    """Normalisations that do something, and classes that stand out."""
    model = MODELS[name]()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, FrozenBatchNorm2d | nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.8, 1.2)
            elif isinstance(module, BoxHead):
                # More, and many boxes have a probability of 1: rounding would decide which of them come first.
                module.cls_score.weight.mul_(5)
        if name == "yolact":
            model.head.classes.weight.mul_(30)  # pyrefly: ignore
    return model


@pytest.mark.parametrize("name", MODELS)
def test_it_finds_the_same(name: str) -> None:
    model = trained(name)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    trains = [parameter.requires_grad for parameter in model.parameters()]
    assert any(trains)
    made = optimize_for_inference(model, torch.device("cpu"))
    side = 138 if name == "yolact" else 160
    batch = {
        "images": torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8),
        "image_sizes": torch.full((2, 2), side, dtype=torch.int32),
    }
    with torch.inference_mode():
        expected = model.eval()(batch)
        found = made(batch)
    assert expected["valid"].any()
    assert torch.equal(found["valid"], expected["valid"])
    assert torch.equal(found["labels"], expected["labels"])
    for part in ("boxes", "scores", "masks"):
        torch.testing.assert_close(found[part], expected[part], rtol=1e-3, atol=1e-3)
    # The model trains on.
    assert [parameter.requires_grad for parameter in model.parameters()] == trains
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_weights_are_folded_and_transformed_once() -> None:
    made = optimize_for_inference(trained("mask_rcnn"), torch.device("cpu"))
    assert not any(isinstance(module, FrozenBatchNorm2d | nn.BatchNorm2d) for module in made.backbone.modules())
    assert not made.training
    served = [
        module.weight for module in made.modules() if isinstance(module, Conv2d) and min(module.weight.shape[:2]) >= 32
    ]
    assert served
    assert all(winograd.prepacked(weight) is not None for weight in served)


def test_weights_are_stored_as_autocast_wants_them() -> None:
    model = trained("mask_rcnn").eval()
    made = optimize_for_inference(model, torch.device("cpu"), torch.bfloat16)
    products = [module for module in made.modules() if isinstance(module, nn.Conv2d | nn.Linear | nn.ConvTranspose2d)]
    assert {module.weight.dtype for module in products} == {torch.bfloat16}
    batch = {
        "images": torch.randint(0, 256, (1, 3, 160, 160), dtype=torch.uint8),
        "image_sizes": torch.full((1, 2), 160, dtype=torch.int32),
    }
    with torch.inference_mode():
        expected = model.backbone(model.normalize(batch))
        with torch.autocast("cpu", torch.bfloat16):
            found = made.backbone(made.normalize(batch))
            assert made(batch)["valid"].any()
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours - theirs).square().mean() < 0.05**2 * theirs.square().mean()
