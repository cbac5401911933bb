"""The box head: classifies a box and refines it."""

import torch.nn.functional as F
from torch import Tensor, nn

from det_heads.config import BoxHeadConfig
from det_heads.initialization import init_box_head

__all__ = ["BoxHead"]


class BoxHead(nn.Module):
    """Two hidden layers and two linear predictors (FPN, section 4.2).

    Args:
        in_channels: Channels of the pyramid.
        num_classes: Object classes, ``C``. Background is the last logit.
        config: Sizes, and the conventions that the detector follows in using this head.
        init: Whose initialisation, see :class:`~det_heads.config.DetectorConfig`.
    """

    def __init__(self, in_channels: int, num_classes: int, config: BoxHeadConfig, init: str = "detectron2") -> None:
        super().__init__()
        self.config = config
        self.fc1 = nn.Linear(in_channels * config.pool.size**2, config.channels)
        self.fc2 = nn.Linear(config.channels, config.channels)
        self.cls_score = nn.Linear(config.channels, num_classes + 1)
        self.bbox_pred = nn.Linear(config.channels, 4 if config.class_agnostic else 4 * num_classes)
        init_box_head(self.fc1, self.fc2, self.cls_score, self.bbox_pred, init)

    def hidden(self, pooled: Tensor) -> Tensor:
        """Box features [R, channels] of pooled features [R, C, P, P]."""
        return F.relu_(self.fc2(F.relu_(self.fc1(pooled.flatten(1)))))

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Predictions for pooled boxes.

        Args:
            pooled: [R, in_channels, P, P].

        Returns:
            Class logits [R, C + 1] and deltas [R, 4C], column ``4c + k`` (or [R, 4] when class-agnostic).
        """
        hidden = self.hidden(pooled)
        return self.cls_score(hidden), self.bbox_pred(hidden)
