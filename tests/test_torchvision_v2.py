"""torchvision's second detectors (convolutions with batch normalisation in every head) against ours, weights shared."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN, maskrcnn_resnet50_fpn_v2
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

from apps.mask_rcnn.config import mask_rcnn_r50_fpn_1x
from det_heads import TwoStageDetector
from det_models import BackboneConfig, build, torchvision_v2_config
from det_models.checkpoints import load_reference

CLASSES = 4
HEIGHT, WIDTH = 96, 128


@pytest.fixture(scope="module")
def theirs() -> MaskRCNN:
    torch.manual_seed(0)
    model = maskrcnn_resnet50_fpn_v2(
        weights=None,
        weights_backbone=None,
        num_classes=CLASSES + 1,
        min_size=HEIGHT,
        max_size=WIDTH,
        rpn_post_nms_top_n_test=60,
        rpn_post_nms_top_n_train=60,
        box_batch_size_per_image=32,
        box_detections_per_img=20,
    )
    for name, tensor in model.backbone.body.named_parameters():
        if name.endswith("bn3.weight"):
            nn.init.constant_(tensor, 0.2)  # without it, fifty random layers amplify rounding a thousandfold
    norms = [module for module in model.backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:  # statistics that fit, as after a training
        norm.momentum = 1.0
    with torch.no_grad():
        model.train().backbone(model.transform([image() / 255])[0].tensors)
    for norm in norms:
        norm.momentum = 0.1
    for layer in (model.rpn.head.cls_logits, model.roi_heads.box_predictor.cls_score):
        nn.init.normal_(layer.weight, std=0.1)  # so that scores differ
    return model


def ours_like(theirs: MaskRCNN) -> TwoStageDetector:
    config = torchvision_v2_config(CLASSES)
    recipe = replace(
        mask_rcnn_r50_fpn_1x(),
        backbone=BackboneConfig(norm="bn", pyramid_norm="bn", stride_in_1x1=False, freeze_at=0),
        detector=replace(
            config,
            rpn=replace(config.rpn, post_nms_test=60, post_nms_train=60),
            box=replace(config.box, samples=32, max_detections=20),
        ),
    )
    model = build(recipe.model())
    report = load_reference(model, theirs.state_dict())
    assert len(report.matched) == len(theirs.state_dict())
    return model


def image() -> Tensor:
    return torch.randint(0, 256, (3, HEIGHT, WIDTH), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def batch_of(*images: Tensor) -> dict[str, Tensor]:
    return {
        "images": torch.stack(images),
        "image_sizes": torch.tensor([[HEIGHT, WIDTH]] * len(images), dtype=torch.int32),
        "scales": torch.ones(len(images), 2),
    }


@torch.inference_mode()
def test_inference(theirs: MaskRCNN) -> None:
    model, peer, picture = ours_like(theirs).eval(), theirs.eval(), image()
    (expected,) = peer([picture / 255])
    found = model(batch_of(picture))
    features = model.backbone(model.normalize(batch_of(picture)))
    pyramid = peer.backbone(peer.transform([picture / 255])[0].tensors)
    for mine, level in zip(features, pyramid.values(), strict=True):
        torch.testing.assert_close(mine, level, rtol=0, atol=1e-4 * level.std().item())
    count = len(expected["boxes"])
    assert count > 3
    assert found["valid"][0].sum() == count
    torch.testing.assert_close(found["boxes"][0, :count], expected["boxes"], rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(found["scores"][0, :count], expected["scores"], rtol=1e-4, atol=1e-5)
    assert torch.equal(found["labels"][0, :count] + 1, expected["labels"])
    torch.testing.assert_close(
        found["masks"][0, :count].mean((1, 2)), probabilities(peer, picture).mean((1, 2)), rtol=1e-4, atol=1e-5
    )


def probabilities(peer: MaskRCNN, picture: Tensor) -> Tensor:
    """The masks before they are pasted."""
    kept = []
    hook = peer.roi_heads.mask_predictor.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    (found,) = peer([picture / 255])
    hook.remove()
    return kept[0].sigmoid()[torch.arange(len(found["labels"])), found["labels"]]


def test_training(theirs: MaskRCNN, monkeypatch: pytest.MonkeyPatch) -> None:
    """The losses of one step and the running statistics after it: one image has no object, so its masks are padding."""
    model, peer = ours_like(theirs).train(), theirs.train()
    pictures = [image(), image().flip(2)]
    boxes = torch.tensor([[10.0, 12.0, 70.0, 80.0], [60.0, 20.0, 120.0, 90.0]])
    bitmaps = torch.zeros(2, HEIGHT, WIDTH, dtype=torch.uint8)
    bitmaps[0, 15:75, 12:60], bitmaps[1, 25:85, 70:110] = 1, 1
    labels = torch.tensor([0, 3])
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "masks": bitmaps[:0]}

    def first(self: BalancedPositiveNegativeSampler, matched: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        positives, negatives = [], []
        for index in matched:
            positive, negative = torch.where(index >= 1)[0], torch.where(index == 0)[0]
            few = min(len(positive), int(self.batch_size_per_image * self.positive_fraction))
            chosen = (positive[:few], negative[: self.batch_size_per_image - few])
            for masks, where in zip((positives, negatives), chosen, strict=True):
                masks.append(torch.zeros(len(index), dtype=torch.uint8).index_fill_(0, where, 1))
        return positives, negatives

    monkeypatch.setattr(BalancedPositiveNegativeSampler, "__call__", first)
    model.random_keys = lambda shape, device: torch.linspace(0.99, 0, shape[1], device=device).expand(shape)
    expected = peer(
        [picture / 255 for picture in pictures], [{"boxes": boxes, "labels": labels + 1, "masks": bitmaps}, empty]
    )
    none = torch.zeros_like
    losses = model(
        batch_of(*pictures)
        | {
            "boxes": torch.stack([boxes, none(boxes)]),
            "labels": torch.stack([labels, none(labels)]),
            "valid": torch.tensor([[True, True], [False, False]]),
            "crowd": torch.zeros(2, 2, dtype=torch.bool),
            "mask_bitmaps": torch.stack([bitmaps, none(bitmaps)]),
        }
    )
    names = {
        "loss_objectness": "loss_rpn_cls",
        "loss_rpn_box_reg": "loss_rpn_box",
        "loss_classifier": "loss_cls",
        "loss_box_reg": "loss_box",
        "loss_mask": "loss_mask",
    }
    for name, mine in names.items():
        torch.testing.assert_close(losses[mine], expected[name], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        model.box_head.norms[3].running_var, peer.roi_heads.box_head[3][1].running_var, rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(
        model.mask_head.norms[3].running_mean, peer.roi_heads.mask_head[3][1].running_mean, rtol=1e-4, atol=1e-5
    )
