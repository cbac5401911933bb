"""Cascade R-CNN and Cascade Mask R-CNN: box heads in a row (Cai and Vasconcelos, arXiv:1712.00726, 1906.09756).

Everything up to the proposals, and each single stage, is that of :class:`~det_heads.TwoStageDetector`; shapes as there.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from det_heads.assignment import Samples, Truth, label_all
from det_heads.box_head import BoxHead
from det_heads.config import BoxHeadConfig, CascadeConfig
from det_heads.detections import select_detections
from det_heads.mask_head import MaskHead
from det_heads.parts import WHOLE, BatchPart
from det_heads.proposals import Proposals
from det_heads.two_stage import TwoStageDetector
from det_ops import clip_boxes, decode_boxes

__all__ = ["CascadeDetector"]


class CascadeDetector(TwoStageDetector):
    """Backbone, region proposals, and box heads of which each refines the boxes of the one before it.

    Used as :class:`~det_heads.TwoStageDetector`. The losses of the box heads are ``loss_cls_stage0``,
    ``loss_box_stage0``, ``loss_cls_stage1``, ...; a mask head per stage gives ``loss_mask_stage0``, ... instead of
    ``loss_mask``.

    Args:
        backbone: As there.
        config: With a cascade configuration.
    """

    def make_heads(self, channels: int) -> None:
        """Adds ``box_heads`` and, with masks, ``mask_head`` or ``mask_heads``."""
        config, cascade = self.config, self._cascade
        self.box_heads = nn.ModuleList(
            BoxHead(channels, config.num_classes, stage, config.init) for stage in cascade.stages(config.box)
        )
        self.mask_head, self.mask_heads = None, nn.ModuleList()
        if cascade.mask_heads == "one":
            self.mask_head = self.make_mask_head(channels)
        elif config.mask is not None:
            self.mask_heads.extend(cast("MaskHead", self.make_mask_head(channels)) for _ in self.box_heads)

    @property
    def _cascade(self) -> CascadeConfig:
        if self.config.cascade is None:
            raise ValueError("this configuration has no cascade; build a TwoStageDetector")
        return self.config.cascade

    def stages(self) -> list[BoxHead]:
        """The box heads in their order."""
        return list(cast("Iterable[BoxHead]", self.box_heads))

    def mask_branch(self) -> list[MaskHead]:
        """All mask heads: one, or one per stage."""
        return list(cast("Iterable[MaskHead]", self.mask_heads)) or super().mask_branch()

    def region_losses(
        self,
        batch: Mapping[str, Tensor],
        features: Sequence[Tensor],
        proposals: Proposals,
        truth: Truth,
        part: BatchPart = WHOLE,
    ) -> dict[str, Tensor]:
        """Losses of all stages, each with the samples that the one before it has refined."""
        cascade, heads = self._cascade, self.stages()
        # RoIAlign is linear: scaling the gradient of the pyramid once scales that of everything pooled from it.
        box_features = [_ScaledGradient.apply(feature, cascade.gradient_scale) for feature in features]
        losses: dict[str, Tensor] = {}
        samples = self.sample_proposals(proposals.boxes, proposals.valid, truth, heads[0].config, part)
        drawn_from = proposals.boxes.shape[1]
        for stage, head in enumerate(heads):
            logits, deltas = self.box_outputs(box_features, samples.boxes, samples.valid, head)
            found = self.box_losses(logits, deltas, samples, head.config, part)
            if self.mask_heads:
                found |= self.mask_losses(batch, features, samples, self.mask_branch()[stage], part)
            losses |= {f"{name}_stage{stage}": loss * cascade.loss_weights[stage] for name, loss in found.items()}
            if stage == 0 and self.mask_head is not None:
                losses |= self.mask_losses(batch, features, samples, self.mask_head, part)
            if stage + 1 < len(heads):
                boxes = self.refine(samples.boxes, deltas, batch["image_sizes"], head.config)
                following = heads[stage + 1].config
                if cascade.resample:
                    # The truth is added to every stage, so the copies of it in this one have no successors.
                    valid = samples.valid & (samples.index < drawn_from)
                    samples = self.sample_proposals(boxes, valid, truth, following, part)
                    drawn_from = boxes.shape[1]
                else:
                    samples = self.relabel(boxes, samples.valid, truth, following)
        return losses

    @torch.no_grad()
    def refine(self, boxes: Tensor, deltas: Tensor, image_sizes: Tensor, config: BoxHeadConfig) -> Tensor:
        """Boxes [B, K, 4] moved by the deltas [B, K, 4] of a stage and cut at the image's border."""
        refined = decode_boxes(
            deltas.float(),
            boxes,
            config.coding.weights,
            offset=self.config.offset,
            max_log_scale=config.coding.max_log_scale,
            clamp_below=config.coding.clamp_below,
        )
        return clip_boxes(refined, image_sizes, offset=self.config.offset)

    @torch.no_grad()
    def relabel(self, boxes: Tensor, valid: Tensor, truth: Truth, config: BoxHeadConfig) -> Samples:
        """All refined boxes [B, K, 4] as samples of the next stage, those without area left out (detectron2)."""
        valid = valid & (boxes[..., 2:] - boxes[..., :2] + self.config.offset > 0).all(-1)
        assignment = self.assign_boxes(boxes, valid, truth, config)
        return label_all(boxes, assignment, truth, num_classes=self.config.num_classes)

    def detect(
        self, features: Sequence[Tensor], boxes: Tensor, valid: Tensor, image_sizes: Tensor
    ) -> dict[str, Tensor]:
        """Detections from proposals [B, K, 4]: boxes of the last stage, scores of all stages."""
        *before, last = self.stages()
        scores: list[Tensor] = []
        for head in before:
            logits, deltas = self.box_outputs(features, boxes, valid, head)
            scores.append(self._score(logits))
            boxes = self.refine(boxes, deltas, image_sizes, head.config)
        logits, deltas = self.box_outputs(features, boxes, valid, last)
        mean = torch.stack([*scores, self._score(logits)]).mean(0)
        detections = select_detections(
            mean.softmax(-1) if self._cascade.scores == "mean_logit" else mean,
            deltas,
            boxes,
            valid,
            image_sizes,
            last.config,
            offset=self.config.offset,
        )
        return self.with_masks(features, detections)

    def _score(self, logits: Tensor) -> Tensor:
        """What the mean over the stages is taken of."""
        return logits.float() if self._cascade.scores == "mean_logit" else logits.float().softmax(-1)


class _ScaledGradient(torch.autograd.Function):
    """The identity, whose gradient is scaled."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.scale, None
