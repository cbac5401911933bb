"""Whole detectors of both sides, with the same weights where a peer has the same network."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

from apps.cascade_rcnn.config import RECIPES as CASCADE_RCNN
from apps.common.config import Recipe
from apps.mask_rcnn.config import RECIPES as MASK_RCNN
from apps.yolact.config import RECIPES as YOLACT
from det_models import Detector, build, torchvision_config
from det_models.checkpoints import load_reference

CLASSES = 90


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Our detector and the peer's; `size` is the only one that the detector takes, or None."""

    recipe: Recipe
    ours: Detector
    torchvision: nn.Module | None
    size: tuple[int, int] | None = None


def keep_size(detector: Any) -> None:
    """Let torchvision's detector take images in the size they have."""
    detector.transform.resize = lambda image, target=None: (image, target)


def rcnn(*, mask: bool, classes: int = CLASSES) -> Pair:
    """torchvision's detector as its own defaults with pretrained weights would build it, and ours of the same rules.

    Stem and first stage frozen, frozen batch norm, no resizing; the same random weights, and a classifier that lets
    both find as many objects as they may report.
    """
    pyramid = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=3
    )
    peer = (MaskRCNN if mask else FasterRCNN)(pyramid, classes + 1)
    keep_size(peer)
    with torch.no_grad():
        for name, tensor in peer.state_dict().items():
            # Without statistics to normalise by, the sums over the blocks grow, and boxes become lines.
            if name.endswith("bn3.weight"):
                tensor.fill_(0.2)
            # Initial weights see nothing at all, and time nothing.
            if name.endswith("cls_score.weight"):
                tensor.mul_(20)
            if name.endswith("cls_score.bias"):
                tensor[0] = -1.0
    recipe = MASK_RCNN["mask_rcnn_r50_fpn_1x"]()
    recipe = replace(
        recipe,
        backbone=replace(recipe.backbone, stride_in_1x1=False),
        detector=torchvision_config(classes, mask=mask),
    )
    ours = build(recipe.model())
    load_reference(ours, peer.state_dict(), "torchvision")
    return Pair(recipe=recipe, ours=ours, torchvision=peer)


def cascade_mask_rcnn() -> Pair:
    """detectron2's cascade; torchvision has none."""
    recipe = CASCADE_RCNN["cascade_mask_rcnn_r50_fpn_1x"]()
    return Pair(recipe=recipe, ours=build(recipe.model()), torchvision=None)


def yolact_base() -> Pair:
    """YOLACT with ResNet-101 at 550 pixels; torchvision has none."""
    recipe = YOLACT["yolact_base"]()
    return Pair(recipe=recipe, ours=build(recipe.model()), torchvision=None, size=(550, 550))


DETECTORS: dict[str, Callable[[], Pair]] = {
    "mask_rcnn": lambda: rcnn(mask=True),
    "faster_rcnn": lambda: rcnn(mask=False),
    "cascade_mask_rcnn": cascade_mask_rcnn,
    "yolact_base": yolact_base,
}
