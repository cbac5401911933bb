"""The mask head: a small mask for a box of known class."""

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from det_heads.config import MaskHeadConfig
from det_heads.initialization import init_mask_head
from det_heads.norm import make_row_norm, normalize
from det_ops import bitmap_targets, convolution_rows, mask_logits_rows, rasterize_polygons

__all__ = ["MaskHead", "mask_targets"]


class MaskHead(nn.Module):
    """3x3 convolutions, a 2x2 transposed convolution and a 1x1 predictor (Mask R-CNN, figure 4 right).

    Only the first ``count`` rows are computed where the device allows, the other rows are padding; and only the mask
    of the given class, which is the only one that the loss or the user sees.

    Args:
        in_channels: Channels of the pyramid.
        num_classes: Object classes.
        config: Sizes, and the conventions that the detector follows in using this head.
        init: Whose initialisation, see :mod:`det_heads.initialization`.
    """

    def __init__(self, in_channels: int, num_classes: int, config: MaskHeadConfig, init: str = "detectron2") -> None:
        super().__init__()
        self.config = config
        widths = [in_channels] + [config.channels] * config.convs
        bias = config.norm is None
        convs = [nn.Conv2d(before, after, 3, padding=1, bias=bias) for before, after in pairwise(widths)]
        self.convs = nn.ModuleList(convs)
        self.norms = nn.ModuleList()
        if config.norm is not None:
            self.norms.extend(make_row_norm(config.norm, config.channels) for _ in convs)
        self.deconv = nn.ConvTranspose2d(widths[-1], config.channels, 2, stride=2)
        self.predictor = nn.Conv2d(config.channels, num_classes, 1)
        init_mask_head(convs, self.deconv, self.predictor, init)

    def forward(self, pooled: Tensor, labels: Tensor, count: Tensor) -> Tensor:
        """Mask logits of each row's class.

        Args:
            pooled: [R, in_channels, P, P].
            labels: [R] int64, class of each row, in 0..C-1 for padding too.
            count: int64 scalar tensor, the number of rows that are not padding; they come first.

        Returns:
            [R, 2P, 2P]; padding rows hold the predictor's bias.
        """
        hidden = pooled
        used = torch.arange(len(pooled), device=pooled.device) < count if len(self.norms) else None
        for index, conv in enumerate(cast("Iterable[nn.Conv2d]", self.convs)):
            hidden = convolution_rows(hidden, conv.weight, conv.bias, count, padding=1, relu=not len(self.norms))
            if len(self.norms):
                hidden = F.relu_(normalize(self.norms[index], hidden, used))
        own = self.predictor.weight.flatten(1)[labels]  # [R, channels]
        logits = mask_logits_rows(hidden, self.deconv.weight, self.deconv.bias, own, count)
        return logits if self.predictor.bias is None else logits + self.predictor.bias[labels][:, None, None]


def mask_targets(
    batch: Mapping[str, Tensor], boxes: Tensor, image_index: Tensor, instance: Tensor, config: MaskHeadConfig
) -> Tensor:
    """What the masks of boxes should be.

    Args:
        batch: ``mask_edges``, ``mask_polygons`` and ``mask_instances``, or ``mask_bitmaps`` for bitmap targets.
        boxes: [R, 4].
        image_index: [R] int64.
        instance: [R] int64, slot of the object within its image; -1 gives zeros.
        config: Which kind of target.

    Returns:
        [R, 2P, 2P] float32 in 0..1.

    Raises:
        ValueError: The batch lacks the tensors that the kind of target needs.
    """
    size = 2 * config.pool.size
    needed = ("mask_bitmaps",) if config.target == "bitmap" else ("mask_edges", "mask_polygons", "mask_instances")
    missing = [name for name in needed if name not in batch]
    if missing:
        raise ValueError(f"mask.target {config.target!r} needs {', '.join(needed)} in the batch, missing {missing}")
    if config.target == "bitmap":
        return bitmap_targets(
            batch["mask_bitmaps"],
            image_index,
            instance,
            boxes,
            size=size,
            aligned=config.bitmap_aligned,
            threshold=config.bitmap_threshold,
        )
    return rasterize_polygons(
        batch["mask_edges"],
        batch["mask_polygons"],
        batch["mask_instances"],
        image_index,
        instance,
        boxes,
        size=size,
        legacy=config.target == "polygon_legacy",
    )
