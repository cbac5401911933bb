"""The networks of YOLACT on top of its pyramid.

Shapes: `B` images, `N` priors, `C` classes, `K` prototypes; P3 is `H3 x W3`, prototypes are twice as large.
"""

from collections.abc import Iterable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from det_backbones import xavier_uniform
from det_heads.yolact.config import MaskIoUConfig
from det_ops.live_rows import convolution_rows

__all__ = ["MaskIoUNet", "PredictionHead", "ProtoNet", "init_xavier"]


def init_xavier(module: nn.Module) -> None:
    """Glorot-uniform weights and zero biases in all convolutions of `module`, as YOLACT initialises its heads."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            xavier_uniform(layer)


class PredictionHead(nn.Module):
    """Boxes, classes and mask coefficients of all priors; one set of weights for all levels.

    Channels are prior-major: prior a has the box channels 4a..., the class channels (C + 1)a... and so on. The
    background is class 0, unlike in the two-stage detectors: the rows of a published classifier could not be told
    apart without knowing how many priors there are.
    """

    def __init__(self, channels: int, hidden: int, priors: int, classes: int, coefficients: int) -> None:
        super().__init__()
        self.feature = nn.Conv2d(channels, hidden, 3, padding=1)
        self.boxes = nn.Conv2d(hidden, priors * 4, 3, padding=1)
        self.classes = nn.Conv2d(hidden, priors * (classes + 1), 3, padding=1)
        self.coefficients = nn.Conv2d(hidden, priors * coefficients, 3, padding=1)
        self.widths = (4, classes + 1, coefficients)
        init_xavier(self)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Compute of the levels [B, channels, H, W] deltas [B, N, 4], logits [B, N, C + 1], coefficients [B, N, K]."""
        parts = [self.level(feature) for feature in features]
        deltas, logits, coefficients = (torch.cat(part, 1) for part in zip(*parts, strict=True))
        return deltas, logits, coefficients

    def level(self, feature: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the same of one level [B, channels, H, W]."""
        hidden = F.relu_(self.feature(feature))
        outputs = (self.boxes(hidden), self.classes(hidden), self.coefficients(hidden))
        deltas, logits, coefficients = (
            output.permute(0, 2, 3, 1).reshape(output.shape[0], -1, width)
            for output, width in zip(outputs, self.widths, strict=True)
        )
        return deltas, logits, coefficients.tanh()


class ProtoNet(nn.Module):
    """Prototype masks from P3, at twice its size."""

    def __init__(self, channels: int, hidden: int, prototypes: int) -> None:
        super().__init__()
        widths = (channels, hidden, hidden, hidden)
        self.convs = nn.ModuleList(nn.Conv2d(width, hidden, 3, padding=1) for width in widths)
        self.predictor = nn.Conv2d(hidden, prototypes, 1)
        init_xavier(self)

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, H3, W3] to [B, K, 2 H3, 2 W3], not negative."""
        for conv in self.convs[:-1]:
            x = F.relu_(conv(x))
        # Without the original's ReLU: what lies between numbers that are not negative is not either.
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        x = F.relu_(self.convs[-1](x))
        return F.relu_(self.predictor(x))


class MaskIoUNet(nn.Module):
    """Estimates the IoU of a predicted mask with the object, for every class (YOLACT++)."""

    def __init__(self, classes: int, config: MaskIoUConfig) -> None:
        super().__init__()
        widths = (1, *config.channels)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, 2) for a, b in zip(widths, config.channels, strict=False))
        self.predictor = nn.Conv2d(widths[-1], classes, 1)
        init_xavier(self)

    def forward(self, masks: Tensor, count: Tensor) -> Tensor:
        """Estimates of the first `count` of the masks.

        Args:
            masks: [R, H, W] probabilities, cropped.
            count: A scalar, int64.

        Returns:
            [R, C] float32, not negative; zero in the other rows.
        """
        x = masks[:, None]
        for conv in cast("Iterable[nn.Conv2d]", self.convs):
            x = convolution_rows(x, conv.weight, conv.bias, count, stride=2, relu=True)
        x = convolution_rows(x, self.predictor.weight, self.predictor.bias, count, relu=True)
        return x.amax((2, 3)).float()
