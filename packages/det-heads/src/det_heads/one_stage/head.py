"""The two towers of a one-stage detector.

Shapes: `B` images, `A` anchors per cell, `C` classes; a level has cells `H x W`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from det_backbones import make_norm, normal
from det_heads.one_stage.config import OneStageConfig

__all__ = ["DenseHead", "DenseOutputs"]

_PRIOR = 0.01
"""Probability of every class at the start of training, in all systems (section 4.1 of the RetinaNet paper)."""


class DenseOutputs(NamedTuple):
    """What the head says of every anchor, level by level.

    Attributes:
        logits: [B, A * C, H, W], channel ``a * C + c``.
        deltas: [B, A * 4, H, W].
        centerness: [B, A, H, W] logits of FCOS; no maps otherwise.
    """

    logits: list[Tensor]
    deltas: list[Tensor]
    centerness: list[Tensor]


class DenseHead(nn.Module):
    """Two rows of 3x3 convolutions, one to the classes and one to the boxes, shared by all levels.

    RetinaNet (Lin et al., 2017), figure 3; of FCOS the box tower also says how near the centre a cell is, as in its
    second version (arXiv:2006.09214).

    Args:
        channels: Of the pyramid, and of the towers.
        config: The rest.
    """

    def __init__(self, channels: int, config: OneStageConfig) -> None:
        super().__init__()
        bias, cells = config.norm is None or config.norm_bias, config.anchors.per_cell
        for name in ("class", "box"):
            convs = [nn.Conv2d(channels, channels, 3, padding=1, bias=bias) for _ in range(config.convs)]
            norms = [make_norm("gn", channels) for _ in convs if config.norm]
            self.add_module(f"{name}_convs", nn.ModuleList(convs))
            self.add_module(f"{name}_norms", nn.ModuleList(norms))
        self.classes = nn.Conv2d(channels, cells * config.num_classes, 3, padding=1)
        self.boxes = nn.Conv2d(channels, cells * 4, 3, padding=1)
        self.centerness = None if config.locations is None else nn.Conv2d(channels, cells, 3, padding=1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                normal(layer, 0.01)
        nn.init.constant_(self.classes.bias, -math.log((1 - _PRIOR) / _PRIOR))  # type: ignore[arg-type]

    def forward(self, features: Sequence[Tensor]) -> DenseOutputs:
        """Compute the outputs for levels [B, channels, H, W]."""
        outputs = DenseOutputs([], [], [])
        for feature in features:
            outputs.logits.append(self.classes(self._tower("class", feature)))
            hidden = self._tower("box", feature)
            outputs.deltas.append(self.boxes(hidden))
            if self.centerness is not None:
                outputs.centerness.append(self.centerness(hidden))
        return outputs

    def _tower(self, name: str, x: Tensor) -> Tensor:
        convs, norms = self.get_submodule(f"{name}_convs"), self.get_submodule(f"{name}_norms")
        normalize = list(norms.children()) or [nn.Identity()] * len(list(convs.children()))
        for conv, norm in zip(convs.children(), normalize, strict=True):
            x = F.relu_(norm(conv(x)))
        return x
