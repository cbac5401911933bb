"""A stand-in backbone, small configurations and random batches."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from det_heads import CascadeDetector, TwoStageDetector
from det_models import (
    DetectorConfig,
    detectron2_cascade_config,
    detectron2_config,
    maskrcnn_benchmark_config,
    mmdetection_cascade_config,
    torchvision_config,
    torchvision_v2_config,
)

PRESETS = {
    "detectron2": detectron2_config,
    "torchvision": torchvision_config,
    "torchvision_v2": torchvision_v2_config,
    "maskrcnn_benchmark": maskrcnn_benchmark_config,
    "detectron2_cascade": detectron2_cascade_config,
    "mmdetection_cascade": mmdetection_cascade_config,
}


class TinyPyramid(nn.Module):
    """Four convolutions and a pooling: the shapes of a feature pyramid at no cost."""

    out_channels = 8
    strides = (4, 8, 16, 32, 64)

    def __init__(self) -> None:
        super().__init__()
        widths = [(3, 4)] + [(self.out_channels, 2)] * 3
        self.convs = nn.ModuleList(nn.Conv2d(c, self.out_channels, k, k) for c, k in widths)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Levels P2 to P6 of images [B, 3, H, W]."""
        levels = []
        for conv in self.convs:
            x = conv(x / 64).relu() * 16
            levels.append(x)
        return [*levels, F.max_pool2d(levels[-1], 1, 2)]


def small(config: DetectorConfig) -> DetectorConfig:
    """The same conventions with fewer of everything."""
    rpn = replace(config.rpn, samples=32, pre_nms_train=60, pre_nms_test=40, post_nms_train=50, post_nms_test=30)
    box = replace(config.box, conv_channels=8, channels=16, samples=24, max_detections=10)
    mask = None if config.mask is None else replace(config.mask, channels=8, convs=2)
    return replace(config, rpn=rpn, box=box, mask=mask)


@pytest.fixture
def make_config() -> Callable[..., DetectorConfig]:
    """``make_config(system, num_classes=3, mask=True)``: a small configuration of a preset."""

    def make(system: str, num_classes: int = 3, *, mask: bool = True) -> DetectorConfig:
        return small(PRESETS[system](num_classes, mask=mask))

    return make


@pytest.fixture
def make_detector() -> Callable[[DetectorConfig], TwoStageDetector]:
    """A detector on the stand-in backbone, the same weights every time, noisy enough to detect something."""

    def make(config: DetectorConfig) -> TwoStageDetector:
        generator = torch.Generator().manual_seed(0)
        kind = TwoStageDetector if config.cascade is None else CascadeDetector
        model = kind(TinyPyramid(), config)
        with torch.no_grad():
            for parameter in model.parameters():
                scale = 1.0 if parameter.ndim < 2 else parameter[0].numel() ** -0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
        return model

    return make


@pytest.fixture
def make_batch() -> Callable[..., dict[str, Tensor]]:
    """``make_batch(objects=5, crowds=0, slots=12, seed=0)``: two images with rectangles as objects."""

    def make(
        objects: int = 5, crowds: int = 0, slots: int = 12, seed: int = 0, height: int = 96, width: int = 128
    ) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        corner = torch.rand(2, slots, 2, generator=generator) * torch.tensor([width * 0.6, height * 0.6])
        size = torch.rand(2, slots, 2, generator=generator) * 40 + 6
        slot = torch.arange(slots).expand(2, slots)
        valid = slot < objects + crowds
        limit = torch.tensor([width, height, width, height]) - 10.0
        boxes = torch.minimum(torch.cat([corner, corner + size], -1), limit) * valid[..., None]
        x1, y1, x2, y2 = boxes.unbind(-1)
        sides = [(x1, y1, x2, y1), (x2, y1, x2, y2), (x2, y2, x1, y2), (x1, y2, x1, y1)]
        edges = torch.stack([torch.stack(side, -1) for side in sides], 2).flatten(1, 2)
        starts = torch.arange(slots + 1).clamp(max=objects + crowds).expand(2, -1).int().contiguous()
        rows, columns = torch.arange(height) + 0.5, torch.arange(width) + 0.5
        inside_y = (rows >= y1[..., None]) & (rows < y2[..., None])
        inside_x = (columns >= x1[..., None]) & (columns < x2[..., None])
        return {
            "images": torch.randint(0, 256, (2, 3, height, width), generator=generator, dtype=torch.uint8),
            "image_sizes": torch.tensor([[height, width], [height - 9, width - 10]], dtype=torch.int32),
            "scales": torch.tensor([[1.0, 1.0], [1.5, 1.5]]),
            "image_ids": torch.arange(2),
            "boxes": boxes,
            "labels": torch.randint(0, 3, (2, slots), generator=generator) * valid,
            "valid": valid,
            "crowd": valid & (slot >= objects),
            "mask_edges": edges,
            "mask_polygons": starts * 4,
            "mask_instances": starts,
            "mask_bitmaps": (inside_y[..., :, None] & inside_x[..., None, :]).to(torch.uint8),
        }

    return make
