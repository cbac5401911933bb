"""The second stage: classifies proposals and refines them."""

import math
from collections.abc import Mapping, Sequence
from itertools import chain, pairwise, repeat

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from det_heads.branches import Branch
from det_heads.classification import ClassCounts, class_counts, class_probabilities
from det_heads.coding import BoxCoder
from det_heads.config import BoxHeadConfig
from det_heads.detections import select_detections
from det_heads.initialization import init_box_head
from det_heads.losses import box_losses
from det_heads.matching import GroundTruth, Matches, Samples, match, subsample
from det_heads.norm import apply_norm, make_row_norm
from det_heads.parts import WHOLE, BatchPart
from det_heads.pooling import RoIPool
from det_heads.proposals import Proposals

__all__ = ["BoxHead"]


class _Counts(nn.Module):
    """The classes' numbers [C] where the head is; they come with its configuration, not with its weights."""

    objects: Tensor
    images: Tensor
    weights: Tensor

    def __init__(self, counts: ClassCounts) -> None:
        super().__init__()
        for name, numbers in counts._asdict().items():
            self.register_buffer(name, numbers, persistent=False)

    def forward(self) -> ClassCounts:
        return ClassCounts(self.objects, self.images, self.weights)


class BoxHead(nn.Module):
    """Hidden layers, convolutions first if there are any, two linear predictors, and all that trains and reads them.

    Source: FPN, section 4.2. Shapes: `B` images, `R` pooled boxes, `K` boxes of an image, `S` samples, `C` classes.

    Args:
        in_channels: Channels of the pyramid.
        num_classes: Object classes, ``C``. Background is the last logit.
        config: Sizes and conventions.
        strides: Pixels per cell of each level of the pyramid, finest first.
        offset: Width convention, see :class:`~det_heads.BoxCoder`.
        init: Whose initialisation, see :mod:`det_heads.initialization`.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        config: BoxHeadConfig,
        strides: Sequence[int] = (4, 8, 16, 32, 64),
        *,
        offset: float = 0.0,
        init: str = "detectron2",
    ) -> None:
        super().__init__()
        self.config = config
        self.num_classes = num_classes
        counts = class_counts(config.classification, num_classes)
        self.counts = None if counts is None else _Counts(counts)
        self.coder = BoxCoder(config.coding, offset)
        self.pool = RoIPool(config.pool, tuple(strides), offset)
        bias = config.norm is None
        widths = [in_channels] + [config.conv_channels] * config.convs
        convs = [nn.Conv2d(before, after, 3, padding=1, bias=bias) for before, after in pairwise(widths)]
        self.convs = nn.ModuleList(convs)
        self.norms = nn.ModuleList()
        if config.norm is not None:
            self.norms.extend(make_row_norm(config.norm, config.conv_channels) for _ in convs)
        sizes = chain([widths[-1] * config.pool.size**2], repeat(config.channels, config.layers))
        layers = [nn.Linear(before, after) for before, after in pairwise(sizes)]
        for number, layer in enumerate(layers, 1):
            self.add_module(f"fc{number}", layer)
        self.cls_score = nn.Linear(config.channels, num_classes + 1)
        self.bbox_pred = nn.Linear(config.channels, 4 if config.class_agnostic else 4 * num_classes)
        init_box_head(convs, layers, self.cls_score, self.bbox_pred, init)
        if config.classification.kind in ("sigmoid", "focal"):
            # All classes begin at a probability of 0.01, or the many that a box has not would be all of the loss.
            nn.init.constant_(self.cls_score.bias, -math.log(99))

    def hidden(self, pooled: Tensor, used: Tensor | None = None) -> Tensor:
        """Compute box features [R, channels] of pooled ones [R, in_channels, P, P]; `used` as in :meth:`forward`."""
        x = pooled
        for index, conv in enumerate(self.convs):
            x = conv(x)
            x = F.relu_(apply_norm(self.norms[index], x, used) if len(self.norms) else x)
        x = x.flatten(1)
        for number in range(1, self.config.layers + 1):
            x = F.relu_(self.get_submodule(f"fc{number}")(x))
        return x

    def forward(self, pooled: Tensor, used: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Predict classes and refinements of pooled boxes.

        Args:
            pooled: [R, in_channels, P, P].
            used: [R] bool, rows that are not padding, which batch statistics are of; None: all.

        Returns:
            Class logits [R, C + 1] and deltas [R, 4C], column ``4c + k`` (or [R, 4] when class-agnostic).
        """
        hidden = self.hidden(pooled, used)
        return self.cls_score(hidden), self.bbox_pred(hidden)

    def outputs(self, features: Sequence[Tensor], boxes: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Predict classes and refinements of boxes.

        Args:
            features: Per level [B, in_channels, H, W].
            boxes: [B, K, 4].
            valid: [B, K] bool.

        Returns:
            Class logits [B, K, C + 1], background last, and deltas [B, K, 4C] (or [B, K, 4] when class-agnostic).
        """
        batch, count = boxes.shape[:2]
        images = torch.arange(batch, device=boxes.device)[:, None].expand(batch, count).flatten()  # [BK]
        layout = torch.channels_last if len(self.convs) else torch.contiguous_format
        pooled = self.pool(features, boxes.flatten(0, 1), images, valid.flatten(), layout)  # [BK, in_channels, P, P]
        logits, deltas = self(pooled, valid.flatten())
        return logits.unflatten(0, (batch, count)), deltas.unflatten(0, (batch, count))

    def losses(
        self,
        batch: Mapping[str, Tensor],
        features: Sequence[Tensor],
        proposals: Proposals,
        truth: GroundTruth,
        branches: Sequence[Branch] = (),
        part: BatchPart = WHOLE,
    ) -> dict[str, Tensor]:
        """Compute ``loss_cls`` and ``loss_box`` of sampled proposals, and the losses of the branches beside this head.

        Args:
            batch: What the branches learn from.
            features: Per level [B, in_channels, H, W].
            proposals: Of the first stage.
            truth: Objects.
            branches: They learn from the same samples.
            part: Which part of a larger batch this is.
        """
        samples = self.sample(proposals.boxes, proposals.valid, truth, part)
        logits, deltas = self.outputs(features, samples.boxes, samples.valid)
        losses = self.box_losses(logits, deltas, samples, part)
        for branch in branches:
            losses |= branch.losses(batch, features, samples, part)
        return losses

    def detect(self, features: Sequence[Tensor], proposals: Proposals, image_sizes: Tensor) -> dict[str, Tensor]:
        """Classify and refine proposals; see :func:`~det_heads.select_detections` for what is returned.

        Args:
            features: Per level [B, in_channels, H, W].
            proposals: Of the first stage.
            image_sizes: [B, 2] (height, width).
        """
        logits, deltas = self.outputs(features, proposals.boxes, proposals.valid)
        scores = class_probabilities(logits, self.config.classification)  # [B, K, C + 1]
        return select_detections(scores, deltas, proposals.boxes, proposals.valid, image_sizes, self.config, self.coder)

    @torch.no_grad()
    def sample(self, boxes: Tensor, valid: Tensor, truth: GroundTruth, part: BatchPart = WHOLE) -> Samples:
        """Draw boxes that train this head, the true ones among them.

        Args:
            boxes: [B, K, 4] candidates.
            valid: [B, K] bool.
            truth: Objects; where the configuration adds them, their index is K and above.
            part: Which part of a larger batch this is.
        """
        config = self.config
        if config.add_truth:
            boxes = torch.cat([boxes, truth.boxes], dim=1)  # [B, K + M, 4]
            valid = torch.cat([valid, truth.usable], dim=1)
        matches = self.match(boxes, valid, truth)
        keys = part.random_keys(boxes.shape[0], boxes.shape[1], boxes.device)
        return subsample(
            boxes,
            matches,
            truth,
            keys,
            count=config.samples,
            fraction=config.positive_fraction,
            num_classes=self.num_classes,
        )

    def match(self, boxes: Tensor, valid: Tensor, truth: GroundTruth) -> Matches:
        """Label boxes [B, K, 4], of which those `valid` [B, K] may be used, by their IoU with the objects."""
        iou, best = self.config.positive_iou, self.config.reassign_best
        return match(
            boxes,
            valid,
            truth,
            positive_iou=iou,
            negative_iou=iou,
            low_quality=best,
            low_quality_iou=iou if best else 0.0,
            reassign_low_quality=best,
            offset=self.coder.offset,
        )

    def box_losses(
        self, logits: Tensor, deltas: Tensor, samples: Samples, part: BatchPart = WHOLE
    ) -> dict[str, Tensor]:
        """Compute ``loss_cls`` and ``loss_box`` of outputs [B, S, C + 1] and [B, S, 4C or 4] for sampled boxes."""
        counts = None if self.counts is None else self.counts()
        classification, regression = box_losses(logits, deltas, samples, self.config, self.coder, part, counts)
        return {"loss_cls": classification, "loss_box": regression}
