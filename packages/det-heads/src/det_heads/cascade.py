"""Cascade R-CNN and Cascade Mask R-CNN: heads in a row (Cai and Vasconcelos, arXiv:1712.00726, 1906.09756)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from det_heads.box_head import BoxHead
from det_heads.branches import Branch
from det_heads.classification import class_probabilities
from det_heads.config import CascadeConfig
from det_heads.detections import select_detections
from det_heads.mask_head import MaskHead, detect_masks
from det_heads.matching import GroundTruth, Samples, label_all
from det_heads.parts import WHOLE, BatchPart
from det_heads.postprocess import Original
from det_heads.proposals import Proposals

__all__ = ["CascadeBoxHeads", "CascadeMaskHeads"]


class CascadeBoxHeads(nn.ModuleList):
    """Box heads of which each refines the boxes of the one before it; takes the place of one :class:`BoxHead`.

    Shapes: `B` images, `K` boxes of an image, `S` samples, `C` classes.

    Args:
        heads: One per stage, class-agnostic, as :meth:`CascadeConfig.stages` configures them.
        config: How they work together.
    """

    def __init__(self, heads: Iterable[BoxHead], config: CascadeConfig) -> None:
        super().__init__(heads)
        self.config = config

    def __iter__(self) -> Iterator[BoxHead]:
        """Iterate over the stages in their order."""
        return cast("Iterator[BoxHead]", super().__iter__())

    @property
    def coder(self) -> Any:
        """Box coding of the first stage."""
        return next(iter(self)).coder

    def losses(
        self,
        batch: Mapping[str, Tensor],
        features: Sequence[Tensor],
        proposals: Proposals,
        truth: GroundTruth,
        branches: Sequence[Branch] = (),
        part: BatchPart = WHOLE,
    ) -> dict[str, Tensor]:
        """Compute the losses of all stages, each with the samples that the one before it has refined.

        Arguments as :meth:`BoxHead.losses`, features per level [B, C, H, W]. A branch learns from the samples of the
        first stage, but :class:`CascadeMaskHeads` have a head for each.

        Returns:
            ``loss_cls_stage0``, ``loss_box_stage0``, ``loss_cls_stage1``, ..., and the branches' losses.
        """
        config, heads = self.config, list(self)
        staged = [branch for branch in branches if isinstance(branch, CascadeMaskHeads)]
        # RoIAlign is linear: scaling the gradient of the pyramid once scales that of everything pooled from it.
        box_features = [_ScaledGradient.apply(feature, config.gradient_scale) for feature in features]
        losses: dict[str, Tensor] = {}
        samples = heads[0].sample(proposals.boxes, proposals.valid, truth, part)
        drawn_from = proposals.boxes.shape[1]
        for stage, head in enumerate(heads):
            logits, deltas = head.outputs(box_features, samples.boxes, samples.valid)
            found = head.box_losses(logits, deltas, samples, part)
            for branch in staged:
                found |= branch.stage(stage).losses(batch, features, samples, part)
            losses |= {f"{name}_stage{stage}": loss * config.loss_weights[stage] for name, loss in found.items()}
            if stage == 0:
                for branch in branches:
                    losses |= {} if branch in staged else branch.losses(batch, features, samples, part)
            if stage + 1 < len(heads):
                boxes = self.refine(head, samples.boxes, deltas, batch["image_sizes"])
                if config.resample:
                    # The truth is added to every stage, so the copies of it in this one have no successors.
                    valid = samples.valid & (samples.index < drawn_from)
                    samples = heads[stage + 1].sample(boxes, valid, truth, part)
                    drawn_from = boxes.shape[1]
                else:
                    samples = self.relabel(heads[stage + 1], boxes, samples.valid, truth)
        return losses

    @staticmethod
    @torch.no_grad()
    def refine(head: BoxHead, boxes: Tensor, deltas: Tensor, image_sizes: Tensor) -> Tensor:
        """Move boxes [B, K, 4] by the deltas [B, K, 4] of a stage and cut them at the image's border."""
        return head.coder.clip(head.coder.decode(deltas.float(), boxes), image_sizes)

    @staticmethod
    @torch.no_grad()
    def relabel(head: BoxHead, boxes: Tensor, valid: Tensor, truth: GroundTruth) -> Samples:
        """Make samples of a stage of all refined boxes [B, K, 4], those without area left out (detectron2)."""
        valid = valid & (head.coder.sides(boxes) > 0).all(-1)
        return label_all(boxes, head.match(boxes, valid, truth), truth, num_classes=head.num_classes)

    def detect(self, features: Sequence[Tensor], proposals: Proposals, image_sizes: Tensor) -> dict[str, Tensor]:
        """Detect as :meth:`BoxHead.detect` does: boxes of the last stage, scores of all stages.

        Args:
            features: Per level [B, C, H, W].
            proposals: Of the first stage.
            image_sizes: [B, 2] (height, width).
        """
        boxes, valid = proposals.boxes, proposals.valid
        *before, last = self
        scores: list[Tensor] = []
        for head in before:
            logits, deltas = head.outputs(features, boxes, valid)
            scores.append(self._score(logits))
            boxes = self.refine(head, boxes, deltas, image_sizes)
        logits, deltas = last.outputs(features, boxes, valid)
        mean = torch.stack([*scores, self._score(logits)]).mean(0)  # [B, K, C + 1]
        probabilities = mean
        if self.config.scores == "mean_logit":
            probabilities = class_probabilities(mean, last.config.classification)
        return select_detections(probabilities, deltas, boxes, valid, image_sizes, last.config, last.coder)

    def _score(self, logits: Tensor) -> Tensor:
        """What the mean over the stages is taken of."""
        if self.config.scores == "mean_logit":
            return logits.float()
        return class_probabilities(logits, next(iter(self)).config.classification)


class CascadeMaskHeads(nn.ModuleList):
    """A mask head per stage of a cascade, trained on its samples; the mean of their probabilities is the mask.

    A branch (see :class:`~det_heads.branches.Branch`) whose losses the cascade asks for stage by stage.

    Args:
        heads: One per stage.
    """

    def __init__(self, heads: Iterable[MaskHead]) -> None:
        super().__init__(heads)

    def stage(self, number: int) -> MaskHead:
        """Return the head of a stage, counted from 0."""
        return cast("MaskHead", self[number])

    def detect(self, features: Sequence[Tensor], detections: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute ``masks`` [B, K, 2P, 2P], as :meth:`MaskHead.detect`."""
        return detect_masks(list(cast("Iterable[MaskHead]", self)), features, detections)

    def to_image(self, found: Mapping[str, Tensor], boxes: Tensor, original: Original) -> dict[str, Any]:
        """Paste the masks at their boxes [N, 4], as :meth:`MaskHead.to_image`."""
        return self.stage(0).to_image(found, boxes, original)


class _ScaledGradient(torch.autograd.Function):
    """The identity, whose gradient is scaled."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.scale, None
