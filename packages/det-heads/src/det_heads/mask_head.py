"""The mask head: a small mask for a box of known class."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from det_heads.initialization import init_mask_head
from det_heads.losses import mask_loss
from det_heads.mask_config import MaskHeadConfig
from det_heads.matching import Samples
from det_heads.norm import apply_norm, make_row_norm
from det_heads.packing import pack, unpack
from det_heads.parts import WHOLE, BatchPart
from det_heads.pooling import RoIPool
from det_heads.postprocess import Original
from det_ops import bitmap_targets, paste_to_rle, rasterize_polygons
from det_ops.live_rows import convolution_rows, mask_logits_rows

__all__ = ["MaskHead", "detect_masks", "mask_targets"]


class MaskHead(nn.Module):
    """3x3 convolutions, a 2x2 transposed convolution and a 1x1 predictor (Mask R-CNN, figure 4 right).

    A :class:`~det_heads.Branch`, with all that trains it and reads it. Only the first ``count`` rows are computed where
    the device allows, the other rows are padding; and only the mask of the given class, which is the only one that the
    loss or the user sees. Shapes: `B` images, `R` pooled boxes, `K` detections, `P` pooled cells, `C` classes.

    Args:
        in_channels: Channels of the pyramid.
        num_classes: Object classes.
        config: Sizes and conventions.
        strides: Pixels per cell of each level of the pyramid, finest first.
        offset: Width convention, see :class:`~det_heads.BoxCoder`.
        init: Whose initialisation, see :mod:`det_heads.initialization`.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        config: MaskHeadConfig,
        strides: Sequence[int] = (4, 8, 16, 32, 64),
        *,
        offset: float = 0.0,
        init: str = "detectron2",
    ) -> None:
        super().__init__()
        self.config = config
        self.num_classes = num_classes
        self.pool = RoIPool(config.pool, tuple(strides), offset)
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
        """Compute the mask logits of each row's class.

        Args:
            pooled: [R, in_channels, P, P].
            labels: [R] int64, class of each row, in 0..C-1 for padding too.
            count: int64 scalar tensor, the number of rows that are not padding; they come first.

        Returns:
            [R, 2P, 2P]; padding rows hold the predictor's bias.
        """
        hidden = pooled
        used = torch.arange(pooled.shape[0], device=pooled.device) < count if len(self.norms) else None
        for index, conv in enumerate(cast("Iterable[nn.Conv2d]", self.convs)):
            hidden = convolution_rows(hidden, conv.weight, conv.bias, count, padding=1, relu=not len(self.norms))
            if len(self.norms):
                hidden = F.relu_(apply_norm(self.norms[index], hidden, used))
        own = self.predictor.weight.flatten(1)[labels]  # [R, channels]
        logits = mask_logits_rows(hidden, self.deconv.weight, self.deconv.bias, own, count)
        return logits if self.predictor.bias is None else logits + self.predictor.bias[labels][:, None, None]

    def losses(
        self, batch: Mapping[str, Tensor], features: Sequence[Tensor], samples: Samples, part: BatchPart = WHOLE
    ) -> dict[str, Tensor]:
        """Compute ``loss_mask``, a scalar, of positive samples of features [B, C, H, W]; see :class:`Branch`."""
        slots = samples.max_positives
        boxes, labels = samples.boxes[:, :slots], samples.labels[:, :slots]
        packing = pack(samples.positive[:, :slots])
        boxes = boxes.flatten(0, 1)[packing.order]  # [R, 4], R = B * slots
        instance = samples.truth_index[:, :slots].flatten()[packing.order]
        pooled = self.pool(features, boxes, packing.images, packing.used)  # [R, in_channels, P, P]
        labels = labels.flatten()[packing.order].clamp(max=self.num_classes - 1)
        logits = self(pooled, labels, packing.count)  # [R, 2P, 2P]
        targets = mask_targets(batch, boxes, packing.images, torch.where(packing.used, instance, -1), self.config)
        return {"loss_mask": mask_loss(logits, targets, packing.used, part)}

    def detect(self, features: Sequence[Tensor], detections: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute ``masks`` [B, K, 2P, 2P], probabilities, zero where no detection is; see :class:`Branch`."""
        return detect_masks([self], features, detections)

    def to_image(self, found: Mapping[str, Tensor], boxes: Tensor, original: Original) -> dict[str, Any]:
        """Paste the masks at boxes [N, 4] of the original image as ``masks``, COCO run lengths; see :class:`Branch`."""
        config = self.config
        size = (original.height, original.width)
        masks = paste_to_rle(found["masks"], boxes, *size, threshold=config.paste_threshold, mode=config.paste)
        return {"masks": masks}


def detect_masks(
    heads: Sequence[MaskHead], features: Sequence[Tensor], detections: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Compute ``masks`` [B, K, 2P, 2P] of detections: the mean of the heads' probabilities, zero where not valid."""
    boxes, labels, valid = (detections[name] for name in ("boxes", "labels", "valid"))
    packing = pack(valid)
    boxes = boxes.flatten(0, 1)[packing.order]  # [R, 4], R = B * K
    pooled = heads[0].pool(features, boxes, packing.images, packing.used)
    labels = labels.flatten()[packing.order]
    slots = (valid.shape[0], valid.shape[1])
    logits = [unpack(head(pooled, labels, packing.count), packing, slots) for head in heads]
    probabilities = torch.stack([one.float().sigmoid() for one in logits]).mean(0)
    return {"masks": torch.where(valid[..., None, None], probabilities, 0.0)}


def mask_targets(
    batch: Mapping[str, Tensor], boxes: Tensor, image_index: Tensor, instance: Tensor, config: MaskHeadConfig
) -> Tensor:
    """Compute what the masks of boxes should be.

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
