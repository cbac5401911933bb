"""Charts of what the program computes: what backbones cost, and how often rare classes are seen."""

from dataclasses import replace

import numpy as np
import torch
from charts import bars
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from apps.mask_rcnn.config import mask_rcnn_r50_fpn_1x
from det_coco import default_splits, load_split, synthetic_dataset
from det_coco.sampler import repeat_factors
from det_models import BackboneConfig, build

_BODIES = {
    "timm/efficientnet_b0": BackboneConfig(name="timm/efficientnet_b0"),
    "timm/convnextv2_atto": BackboneConfig(name="timm/convnextv2_atto"),
    # Frozen norms do not run on `meta`, and cost as little as group norms.
    "ResNet-50": BackboneConfig(norm="gn"),
    "timm/convnext_tiny": BackboneConfig(name="timm/convnext_tiny"),
    "timm/res2net50_26w_4s": BackboneConfig(name="timm/res2net50_26w_4s"),
    "timm/swin_tiny": BackboneConfig(name="timm/swin_tiny_patch4_window7_224"),
    "timm/vit_small_patch16_dinov3": BackboneConfig(name="timm/vit_small_patch16_dinov3", freeze_at=0),
    "ResNeXt-101 32x8d": BackboneConfig(norm="gn", depth=101, groups=32, width_per_group=8),
    "timm/samvit_base_patch16": BackboneConfig(name="timm/samvit_base_patch16", freeze_at=0),
}
_SIZE = (800, 1344)
_THRESHOLD, _RAREST = 0.5, 4


def bodies_chart() -> str:
    """The products of backbones with their pyramids for one image, and their parameters; an SVG."""
    rows = []
    for name, config in _BODIES.items():
        with torch.device("meta"), torch.no_grad():  # nothing is computed
            body = build(replace(mask_rcnn_r50_fpn_1x(), backbone=config).resolved().model()).backbone.eval()
            assert isinstance(body, nn.Module)
            with FlopCounterMode(display=False) as counted:
                body(torch.empty(1, 3, *_SIZE))
        products = counted.get_total_flops() / 2e9
        parameters = sum(each.numel() for each in body.parameters()) / 1e6
        label = f"{products:.0f} billion, {parameters:.0f} M"
        rows.append((name, [(products, label)]))
    return bars(rows)


def repeats_chart() -> str:
    """Images with each class of a long-tailed part of the embedded scenes, in the data and in an epoch; an SVG."""
    index = load_split(synthetic_dataset(), default_splits(synthetic_dataset())[0])
    shown = np.zeros((len(index), index.num_classes), dtype=bool)
    for position in range(len(index)):
        shown[position, index.labels[index.instances(position)]] = True
    # Each class in at most half as many images as the one before it.
    kept = np.ones(len(index), dtype=bool)
    for label in reversed(range(index.num_classes)):
        most = _RAREST * 2 ** (index.num_classes - 1 - label)
        kept[np.flatnonzero(kept & shown[:, label])[most:]] = False
    positions = np.flatnonzero(kept)
    factors = repeat_factors(index, positions, _THRESHOLD)
    names = list(index.categories.values())
    epoch = factors @ shown[positions]
    return bars(
        [
            (names[label], [(epoch[label], f"{epoch[label]:.0f} times in an epoch"), (count, f"{count} images")])
            for label, count in enumerate(shown[positions].sum(0).tolist())
        ]
    )
