"""RetinaNet and FCOS beside torchvision's own, run here: losses, gradients and detections for the same weights.

Weights are made by the rule of `fill.py`, whose file holds no outputs of these networks: torchvision is in every
environment that the tests have.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import fcos_resnet50_fpn, retinanet_resnet50_fpn, retinanet_resnet50_fpn_v2
from torchvision.ops import misc

from det_heads import OneStageDetector
from det_models import build
from det_models.adopting import model_of
from det_models.checkpoints import load_reference, read, to_reference
from tests.parity.batches import Batch
from tests.parity.fill import fill
from tests.parity.reference import matching

pytestmark = pytest.mark.slow

CLASSES = 5
SIZES = ((128, 160), (112, 144))
LIMITS = {"head": 1e-2, "backbone.fpn": 1e-2, "backbone.body": 1e-1}
"""Admissible norm of a gradient's difference, relative to its own, by part: on maps of a few cells units at the kink of
a ReLU change sides by rounding, and the nearer the image, the more of them lie between. `test_training.py` holds the
body to less."""


@dataclass(frozen=True)
class Case:
    """A detector of torchvision's.

    Attributes:
        make: It.
        norm: Normalisation of its body.
        losses: Our loss -> theirs.
        score: Threshold of detections.
    """

    make: Callable[..., nn.Module]
    norm: type[nn.Module]
    losses: dict[str, str]


RETINANET = {"loss_cls": "classification", "loss_box": "bbox_regression"}
CASES = {
    "retinanet": Case(retinanet_resnet50_fpn, misc.FrozenBatchNorm2d, RETINANET),
    "retinanet v2": Case(retinanet_resnet50_fpn_v2, nn.BatchNorm2d, RETINANET),
    "fcos": Case(fcos_resnet50_fpn, misc.FrozenBatchNorm2d, RETINANET | {"loss_centerness": "bbox_ctrness"}),
}


@dataclass
class Pair:
    """The two networks, with the same weights, and a batch."""

    case: Case
    ours: OneStageDetector
    theirs: nn.Module
    system: str
    batch: Batch


@pytest.fixture(scope="module", params=CASES)
def pair(request: pytest.FixtureRequest) -> Pair:
    case = CASES[request.param]
    theirs = make(case)
    state = {name: torch.from_numpy(fill(name, tensor.shape)) for name, tensor in theirs.state_dict().items()}
    for name, value in (("weight", 0.0), ("bias", -1000.0)):  # torchvision's background is a class with a loss
        state[f"head.classification_head.cls_logits.{name}"].unflatten(0, (-1, CLASSES + 1))[:, 0] = value
    theirs.load_state_dict(state)
    checkpoint = read(state)
    model = model_of(checkpoint)
    # A published file of torchvision's RetinaNet has no epsilon; this one was made with it.
    model = replace(model, backbone=replace(model.backbone, norm_eps=1e-5, freeze_at=0))
    ours = build(model)
    assert isinstance(ours, OneStageDetector)
    load_reference(ours, state)
    return Pair(case, ours, theirs, checkpoint.system, make_batch())


def make(case: Case) -> nn.Module:
    """The network without weights, for pictures in the size that they have."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("retinanet", "fcos"):
            resnet = f"torchvision.models.detection.{module}.resnet50"
            patch.setattr(resnet, _body(case))
        network = case.make(weights=None, weights_backbone=None, num_classes=CLASSES + 1)
    network.transform.min_size, network.transform.max_size = (SIZES[0][0],), 10_000
    network.transform.resize = lambda image, target: (image, target)
    return network


def _body(case: Case) -> Callable[..., nn.Module]:
    from torchvision.models import resnet50

    def body(**options: object) -> nn.Module:
        return resnet50(weights=None, norm_layer=case.norm)

    return body


def make_batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    images = torch.zeros(2, 3, 128, 160, dtype=torch.uint8)
    for image, (height, width) in zip(images, SIZES, strict=True):
        coarse = torch.rand(1, 3, 8, 10, generator=generator) * 255
        image[:, :height, :width] = nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0].byte()
    boxes = torch.zeros(2, 6, 4)
    boxes[0, :4] = torch.tensor([[10.0, 12, 70, 60], [80, 30, 150, 120], [20, 15, 40, 42], [5, 5, 150, 120]])
    boxes[1, :3] = torch.tensor([[30.0, 20, 60, 52], [0, 60, 90, 110], [100, 10, 140, 100]])
    valid = boxes[..., 2] > 0
    labels = torch.tensor([[0, 1, 2, 4, 0, 0], [3, 0, 1, 0, 0, 0]])
    return {
        "images": images,
        "image_sizes": torch.tensor(SIZES, dtype=torch.int32),
        "scales": torch.ones(2, 2),
        "boxes": boxes,
        "labels": labels,
        "valid": valid,
        "crowd": torch.zeros_like(valid),
    }


def their_images(batch: Batch) -> list[Tensor]:
    return [image[:, :h, :w].float() / 255 for image, (h, w) in zip(batch["images"], SIZES, strict=True)]


def test_losses_and_gradients(pair: Pair) -> None:
    batch = pair.batch
    targets = [
        {"boxes": batch["boxes"][i][batch["valid"][i]], "labels": batch["labels"][i][batch["valid"][i]] + 1}
        for i in range(2)
    ]
    for network in (pair.ours, pair.theirs):
        network.train()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    theirs = pair.theirs(their_images(batch), targets)
    ours = pair.ours(batch)
    assert ours.keys() == pair.case.losses.keys()
    for name, other in pair.case.losses.items():
        torch.testing.assert_close(ours[name], theirs[other], rtol=2e-4, atol=0)
    sum(ours.values()).backward()
    sum(theirs.values()).backward()
    gradients = {name: p.grad for name, p in pair.ours.named_parameters() if p.requires_grad and p.grad is not None}
    found = to_reference(gradients, pair.system)
    expected = {name: p.grad for name, p in pair.theirs.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    errors = {}
    for name, gradient in expected.items():
        one, other = found[name].double(), gradient.double()
        if "cls_logits" in name:  # ours has no background
            one, other = (tensor.unflatten(0, (-1, CLASSES + 1))[:, 1:] for tensor in (one, other))
        errors[name] = ((one - other).norm() / other.norm()).item()
    for part, limit in LIMITS.items():
        assert {name: e for name, e in errors.items() if name.startswith(part) and e > limit} == {}


def test_detections(pair: Pair) -> None:
    batch = pair.batch
    with torch.no_grad():
        theirs = pair.theirs.eval()(their_images(batch))
        found = pair.ours.eval()({name: batch[name] for name in ("images", "image_sizes")})
    for image in range(2):
        valid = found["valid"][image]
        ours = {name: found[name][image][valid] for name in ("boxes", "scores", "labels")}
        boxes, scores, labels = (theirs[image][name] for name in ("boxes", "scores", "labels"))
        assert len(boxes) > 20
        row = matching(ours["boxes"], boxes, ours["labels"] + 1, labels, tolerance=0.02)
        torch.testing.assert_close(ours["scores"], scores[row], rtol=1e-4, atol=1e-5)
