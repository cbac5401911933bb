"""Faster R-CNN and Mask R-CNN as one static program over a batch, and what their cascades share with them.

Shapes: `B` images of padded size `H, W`, `N` anchors, `K` proposals or detections, `S` samples, `M` object slots, `C`
classes. None of them depends on the data, and nothing is read back to the host.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from det_heads.anchors import Anchors, inside_image
from det_heads.assignment import Assignment, Samples, Truth, assign, draw, truth_of
from det_heads.box_head import BoxHead
from det_heads.config import BoxHeadConfig
from det_heads.detections import select_detections
from det_heads.losses import box_losses, mask_loss, rpn_losses
from det_heads.mask_head import MaskHead, mask_targets
from det_heads.packing import pack, unpack
from det_heads.parts import WHOLE, BatchPart
from det_heads.pixels import Normalize
from det_heads.pooling import pool_boxes
from det_heads.postprocess import ImageDetections, to_image
from det_heads.proposals import Proposals, select_proposals
from det_heads.rpn import RPNHead

__all__ = ["TwoStageDetector"]


class TwoStageDetector(nn.Module):
    """Backbone, region proposals, box head and, for Mask R-CNN, mask head.

    Training: ``losses = model(batch)``, a dict of float32 scalars ``loss_rpn_cls``, ``loss_rpn_box``, ``loss_cls``,
    ``loss_box`` and ``loss_mask``. Inference: ``detections = model(batch)``, a dict of ``boxes`` [B, K, 4] in network
    coordinates, ``scores`` [B, K], ``labels`` [B, K], ``valid`` [B, K] and ``masks`` [B, K, 28, 28] probabilities;
    :meth:`to_image` brings them to the original images. Every stage is a method of its own.

    Args:
        backbone: Maps normalised images to a pyramid (P2, P3, P4, P5, P6); has ``out_channels`` and ``strides``
            and, for learning rates by layer, ``layer_groups()``.
        config: Every convention of the heads, a `det_models.DetectorConfig`.
    """

    def __init__(self, backbone: nn.Module, config: Any) -> None:
        super().__init__()
        channels, strides = int(backbone.out_channels), tuple(int(s) for s in backbone.strides)  # type: ignore[arg-type]
        self.config = config
        self.strides = strides
        self.pixels = Normalize(config.pixels)
        self.backbone = backbone
        self.anchors = Anchors(config.rpn.anchors, strides)
        self.rpn = RPNHead(channels, config.rpn.anchors.per_cell, config.rpn.convs)
        self.make_heads(channels)

    def make_heads(self, channels: int) -> None:
        """Adds the heads that look at boxes, over a pyramid of so many channels."""
        if self.config.cascade is not None:
            raise ValueError("this configuration is of a cascade; build a CascadeDetector")
        self.box_head = BoxHead(channels, self.config.num_classes, self.config.box, self.config.init)
        self.mask_head = self.make_mask_head(channels)

    def make_mask_head(self, channels: int) -> MaskHead | None:
        """A mask head, or None in a detector without masks."""
        if self.config.mask is None:
            return None
        return MaskHead(channels, self.config.num_classes, self.config.mask, self.config.init)

    def forward(self, batch: Mapping[str, Tensor], part: BatchPart | None = None) -> dict[str, Tensor]:
        """Losses of a batch in training mode, detections otherwise.

        Args:
            batch: ``images`` [B, 3, H, W] and ``image_sizes`` [B, 2]; in training also the truth: ``boxes``,
                ``labels``, ``valid``, ``crowd``, ``scales`` and the mask tensors.
            part: In training, which part of a larger batch this is.
        """
        features = self.backbone(self.normalize(batch))
        image_shape = (batch["images"].shape[-2], batch["images"].shape[-1])
        anchors = self.anchors([(f.shape[-2], f.shape[-1]) for f in features], image_shape)
        if self.training:
            return self._losses(batch, features, anchors, part or WHOLE)
        sizes = batch["image_sizes"]
        logits, deltas = self.rpn(features)
        proposals = self.propose(logits, deltas, anchors, sizes)
        return self.detect(features, proposals.boxes, proposals.valid, sizes)

    def _losses(
        self, batch: Mapping[str, Tensor], features: Sequence[Tensor], anchors: Tensor, part: BatchPart
    ) -> dict[str, Tensor]:
        truth = truth_of(batch, self.config.offset)
        sizes = batch["image_sizes"]
        losses = self.rpn_losses(features, self.sample_anchors(anchors, truth, sizes, part), part)
        with torch.no_grad():
            logits, deltas = self.rpn(features)
        proposals = self.propose(logits, deltas, anchors, sizes)
        return losses | self.region_losses(batch, features, proposals, truth, part)

    def region_losses(
        self,
        batch: Mapping[str, Tensor],
        features: Sequence[Tensor],
        proposals: Proposals,
        truth: Truth,
        part: BatchPart = WHOLE,
    ) -> dict[str, Tensor]:
        """Losses of the heads that look at boxes."""
        samples = self.sample_proposals(proposals.boxes, proposals.valid, truth, self.box_head.config, part)
        logits, deltas = self.box_outputs(features, samples.boxes, samples.valid, self.box_head)
        losses = self.box_losses(logits, deltas, samples, self.box_head.config, part)
        if self.mask_head is not None:
            losses |= self.mask_losses(batch, features, samples, self.mask_head, part)
        return losses

    def random_keys(self, shape: tuple[int, int], device: torch.device) -> Tensor:
        """Uniform numbers that decide which candidates are sampled; the largest win. Replace to sample otherwise."""
        return torch.rand(shape, device=device)

    def batch_part(self, index: int, count: int, mean: Callable[[Tensor], Tensor]) -> BatchPart:
        """What :meth:`forward` takes as `part`; this and :meth:`layer_groups` are what `det_engine` asks a model."""
        return BatchPart(index, count, mean)

    def layer_groups(self) -> tuple[tuple[str, ...], ...]:
        """What the names of the backbone's parameters begin with, layer by layer from the input on."""
        groups = self.backbone.layer_groups()  # type: ignore[operator]
        return tuple(tuple(f"backbone.{prefix}" for prefix in group) for group in groups)

    def _keys(self, shape: tuple[int, int], device: torch.device, part: BatchPart) -> Tensor:
        return part.rows(functools.partial(self.random_keys, device=device), shape)

    # Stages, in the order of their use.

    def normalize(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Network input [B, 3, H, W] float32 of ``images`` and ``image_sizes``."""
        return self.pixels(batch["images"], batch["image_sizes"])

    @torch.no_grad()
    def propose(
        self, logits: Sequence[Tensor], deltas: Sequence[Tensor], anchors: Tensor, image_sizes: Tensor
    ) -> Proposals:
        """Proposals from the RPN's dense outputs; the counts are those of the current mode.

        Args:
            logits: Per level [B, A, H, W].
            deltas: Per level [B, 4A, H, W].
            anchors: [N, 4].
            image_sizes: [B, 2] (height, width).
        """
        return select_proposals(
            logits, deltas, anchors, image_sizes, self.config.rpn, training=self.training, offset=self.config.offset
        )

    @torch.no_grad()
    def sample_anchors(self, anchors: Tensor, truth: Truth, image_sizes: Tensor, part: BatchPart = WHOLE) -> Samples:
        """Anchors [N, 4] that train the RPN; their label is 0 for objects and 1 for background."""
        config = self.config.rpn
        inside, candidates = None, anchors
        if config.anchors.straddle is not None:
            inside = inside_image(anchors, image_sizes, config.anchors.straddle)
            if not config.anchors.match_straddling:
                candidates = torch.where(inside[..., None], anchors, 0.0)  # these overlap nothing
        assignment = assign(
            candidates,
            inside,
            truth,
            positive_iou=config.positive_iou,
            negative_iou=config.negative_iou,
            low_quality=config.low_quality_matches,
            low_quality_iou=config.low_quality_iou,
            reassign_low_quality=config.reassign_low_quality,
            offset=self.config.offset,
        )
        keys = self._keys((truth.boxes.shape[0], anchors.shape[0]), anchors.device, part)
        objects = truth._replace(labels=torch.zeros_like(truth.labels))
        return draw(
            anchors, assignment, objects, keys, count=config.samples, fraction=config.positive_fraction, num_classes=1
        )

    def rpn_losses(self, features: Sequence[Tensor], samples: Samples, part: BatchPart = WHOLE) -> dict[str, Tensor]:
        """``loss_rpn_cls`` and ``loss_rpn_box`` at sampled anchors."""
        logits, deltas = self.rpn.at(features, samples.index)
        objectness, regression = rpn_losses(
            logits, deltas, samples, self.config.rpn, offset=self.config.offset, part=part
        )
        return {"loss_rpn_cls": objectness, "loss_rpn_box": regression}

    @torch.no_grad()
    def sample_proposals(
        self, boxes: Tensor, valid: Tensor, truth: Truth, config: BoxHeadConfig, part: BatchPart = WHOLE
    ) -> Samples:
        """Boxes [B, K, 4] that train the box and mask heads, the true boxes among them (index K and above)."""
        if config.add_truth:
            boxes = torch.cat([boxes, truth.boxes], dim=1)
            valid = torch.cat([valid, truth.usable], dim=1)
        assignment = self.assign_boxes(boxes, valid, truth, config)
        keys = self._keys((boxes.shape[0], boxes.shape[1]), boxes.device, part)
        return draw(
            boxes,
            assignment,
            truth,
            keys,
            count=config.samples,
            fraction=config.positive_fraction,
            num_classes=self.config.num_classes,
        )

    def assign_boxes(self, boxes: Tensor, valid: Tensor, truth: Truth, config: BoxHeadConfig) -> Assignment:
        """Labels of boxes [B, K, 4] for a box head."""
        return assign(
            boxes,
            valid,
            truth,
            positive_iou=config.positive_iou,
            negative_iou=config.positive_iou,
            low_quality=config.reassign_best,
            low_quality_iou=config.positive_iou if config.reassign_best else 0.0,
            reassign_low_quality=config.reassign_best,
            offset=self.config.offset,
        )

    def box_outputs(
        self, features: Sequence[Tensor], boxes: Tensor, valid: Tensor, head: BoxHead
    ) -> tuple[Tensor, Tensor]:
        """Class logits [B, K, C + 1] (background last) and deltas [B, K, 4C or 4] of boxes [B, K, 4]."""
        batch, count = boxes.shape[:2]
        images = torch.arange(batch, device=boxes.device)[:, None].expand(batch, count).flatten()
        pooled = pool_boxes(
            features,
            self.strides,
            boxes.flatten(0, 1),
            images,
            valid.flatten(),
            head.config.pool,
            offset=self.config.offset,
            memory_format=torch.channels_last if len(head.convs) else torch.contiguous_format,
        )
        logits, deltas = head(pooled, valid.flatten())
        return logits.unflatten(0, (batch, count)), deltas.unflatten(0, (batch, count))

    def box_losses(
        self, logits: Tensor, deltas: Tensor, samples: Samples, config: BoxHeadConfig, part: BatchPart = WHOLE
    ) -> dict[str, Tensor]:
        """``loss_cls`` and ``loss_box`` of a box head's outputs for sampled boxes."""
        classification, regression = box_losses(logits, deltas, samples, config, offset=self.config.offset, part=part)
        return {"loss_cls": classification, "loss_box": regression}

    def mask_losses(
        self,
        batch: Mapping[str, Tensor],
        features: Sequence[Tensor],
        samples: Samples,
        head: MaskHead,
        part: BatchPart = WHOLE,
    ) -> dict[str, Tensor]:
        """``loss_mask`` of the positive samples, which hold the first slots of every image."""
        box = self.config.box
        slots = min(samples.valid.shape[1], max(1, int(box.samples * box.positive_fraction)))
        boxes, labels = samples.boxes[:, :slots], samples.labels[:, :slots]
        packing = pack(samples.positive[:, :slots])
        boxes = boxes.flatten(0, 1)[packing.order]
        instance = samples.truth_index[:, :slots].flatten()[packing.order]
        pooled = pool_boxes(
            features, self.strides, boxes, packing.images, packing.used, head.config.pool, offset=self.config.offset
        )
        labels = labels.flatten()[packing.order].clamp(max=self.config.num_classes - 1)
        logits = head(pooled, labels, packing.count)
        targets = mask_targets(batch, boxes, packing.images, torch.where(packing.used, instance, -1), head.config)
        return {"loss_mask": mask_loss(logits, targets, packing.used, part=part)}

    def detect(
        self, features: Sequence[Tensor], boxes: Tensor, valid: Tensor, image_sizes: Tensor
    ) -> dict[str, Tensor]:
        """Detections, with masks if there is a mask head, from proposals [B, K, 4]."""
        logits, deltas = self.box_outputs(features, boxes, valid, self.box_head)
        detections = select_detections(
            F.softmax(logits.float(), dim=-1),
            deltas,
            boxes,
            valid,
            image_sizes,
            self.box_head.config,
            offset=self.config.offset,
        )
        return self.with_masks(features, detections)

    def with_masks(self, features: Sequence[Tensor], detections: dict[str, Tensor]) -> dict[str, Tensor]:
        """Detections with ``masks`` [B, K, 28, 28], if there is a mask head: the mean probability of all there are."""
        if self.config.mask is not None:
            valid = detections["valid"]
            logits = self.mask_logits(features, detections["boxes"], detections["labels"], valid)
            probabilities = torch.stack([head.float().sigmoid() for head in logits]).mean(0)
            detections["masks"] = torch.where(valid[..., None, None], probabilities, 0.0)
        return detections

    def mask_logits(self, features: Sequence[Tensor], boxes: Tensor, labels: Tensor, valid: Tensor) -> list[Tensor]:
        """Mask logits [B, K, 28, 28] of boxes [B, K, 4] for their labels [B, K], from each mask head."""
        heads = self.mask_branch()
        packing = pack(valid)
        pooled = pool_boxes(
            features,
            self.strides,
            boxes.flatten(0, 1)[packing.order],
            packing.images,
            packing.used,
            heads[0].config.pool,
            offset=self.config.offset,
        )
        labels = labels.flatten()[packing.order]
        return [
            unpack(head(pooled, labels, packing.count), packing, (valid.shape[0], valid.shape[1])) for head in heads
        ]

    def mask_branch(self) -> list[MaskHead]:
        """All mask heads."""
        if self.mask_head is None:
            raise ValueError("this detector has no mask head; build it with a mask configuration")
        return [self.mask_head]

    def to_image(
        self, detections: Mapping[str, Tensor], scales: Tensor, original_sizes: Sequence[tuple[int, int]]
    ) -> list[ImageDetections]:
        """Detections in pixels of the original images, see :func:`det_heads.to_image`."""
        mask = self.config.mask
        return to_image(
            detections,
            scales,
            original_sizes,
            offset=self.config.offset,
            paste=mask.paste if mask is not None else "grid_sample",
            paste_threshold=mask.paste_threshold if mask is not None else 0.5,
        )
