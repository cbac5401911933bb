"""Which anchors or cells stand for which objects.

Shapes: `B` images, `N` anchors of an image over all levels, `M` object slots.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from det_heads.matching import GroundTruth, Matches, match, without_ignored
from det_heads.one_stage.config import LocationConfig, OneStageConfig

__all__ = ["IoUAssignment", "LocationAssignment"]


@dataclass(frozen=True)
class IoUAssignment:
    """RetinaNet's: by the IoU of anchors with objects (section 4.1 of the paper).

    Attributes:
        config: Its limits.
    """

    config: OneStageConfig

    def __call__(self, anchors: Tensor, truth: GroundTruth) -> Matches:
        """Label anchors [N, 4] of the images of a batch."""
        return match(
            anchors,
            None,
            truth,
            positive_iou=self.config.positive_iou,
            negative_iou=self.config.negative_iou,
            low_quality=True,
            reassign_low_quality=self.config.reassign_low_quality,
            offset=0.0,
        )


@dataclass(frozen=True)
class LocationAssignment:
    """FCOS's: by where a cell lies in an object and how large that is (sections 3.1 and 3.2 of the paper).

    Source: detectron2/modeling/meta_arch/fcos.py, `_match_anchors`; torchvision has the same.

    Attributes:
        config: Its limits.
        finest: Stride of the finest level in pixels.
        coarsest: That of the coarsest.
    """

    config: LocationConfig
    finest: float
    coarsest: float

    def __call__(self, anchors: Tensor, truth: GroundTruth) -> Matches:
        """Label the cells whose squares of one stride are the anchors [N, 4]."""
        centre, stride = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2] - anchors[:, 0]  # [N, 2], [N]
        low, high = truth.boxes[:, None, :, :2], truth.boxes[:, None, :, 2:]  # [B, 1, M, 2]
        cells, strides = centre[:, None], stride[:, None]  # [N, 1, 2], [N, 1]
        near = (cells - (low + high) / 2).abs().amax(-1) < self.config.radius * strides  # [B, N, M]
        distances = torch.cat((cells - low, high - cells), -1)  # [B, N, M, 4]
        least, most = (limit * strides for limit in self.config.reach)
        least = torch.where(strides == self.finest, 0.0, least)
        most = torch.where(strides == self.coarsest, torch.inf, most)
        farthest = distances.amax(-1)
        fits = near & (distances.amin(-1) > 0) & (farthest > least) & (farthest < most) & truth.usable[:, None]
        # The smallest of several objects, as the sources spell it: areas are subtracted from a number in float32.
        area = (truth.boxes[..., 2:] - truth.boxes[..., :2]).prod(-1)  # [B, M]
        quality, index = (fits * (1e8 - area)[:, None]).max(-1)
        return without_ignored(anchors, Matches(index, (quality >= 1e-5).to(torch.int8)), truth)
