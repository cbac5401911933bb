"""The box head: classifies a box and refines it."""

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from det_heads.config import BoxHeadConfig
from det_heads.initialization import init_box_head
from det_heads.norm import make_row_norm, normalize

__all__ = ["BoxHead"]


class BoxHead(nn.Module):
    """Hidden layers, convolutions first if there are any, and two linear predictors (FPN, section 4.2).

    Args:
        in_channels: Channels of the pyramid.
        num_classes: Object classes, ``C``. Background is the last logit.
        config: Sizes, and the conventions that the detector follows in using this head.
        init: Whose initialisation, see :mod:`det_heads.initialization`.
    """

    def __init__(self, in_channels: int, num_classes: int, config: BoxHeadConfig, init: str = "detectron2") -> None:
        super().__init__()
        self.config = config
        bias = config.norm is None
        widths = [in_channels] + [config.conv_channels] * config.convs
        convs = [nn.Conv2d(before, after, 3, padding=1, bias=bias) for before, after in pairwise(widths)]
        self.convs = nn.ModuleList(convs)
        self.norms = nn.ModuleList()
        if config.norm is not None:
            self.norms.extend(make_row_norm(config.norm, config.conv_channels) for _ in convs)
        sizes = [widths[-1] * config.pool.size**2] + [config.channels] * config.layers
        layers = [nn.Linear(before, after) for before, after in pairwise(sizes)]
        for number, layer in enumerate(layers, 1):
            self.add_module(f"fc{number}", layer)
        self.cls_score = nn.Linear(config.channels, num_classes + 1)
        self.bbox_pred = nn.Linear(config.channels, 4 if config.class_agnostic else 4 * num_classes)
        init_box_head(convs, layers, self.cls_score, self.bbox_pred, init)

    def hidden(self, pooled: Tensor, used: Tensor | None = None) -> Tensor:
        """Box features [R, channels] of pooled features [R, C, P, P]; `used` as in :meth:`forward`."""
        x = pooled
        for index, conv in enumerate(self.convs):
            x = conv(x)
            x = F.relu_(normalize(self.norms[index], x, used) if len(self.norms) else x)
        x = x.flatten(1)
        for number in range(1, self.config.layers + 1):
            x = F.relu_(self.get_submodule(f"fc{number}")(x))
        return x

    def forward(self, pooled: Tensor, used: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Predictions for pooled boxes.

        Args:
            pooled: [R, in_channels, P, P].
            used: [R] bool, rows that are not padding, which batch statistics are of; None: all.

        Returns:
            Class logits [R, C + 1] and deltas [R, 4C], column ``4c + k`` (or [R, 4] when class-agnostic).
        """
        hidden = self.hidden(pooled, used)
        return self.cls_score(hidden), self.bbox_pred(hidden)
