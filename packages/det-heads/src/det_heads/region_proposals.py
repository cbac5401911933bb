"""The first stage: where objects may be."""

from collections.abc import Sequence

import torch
from torch import Tensor

from det_heads.anchors import inside_image
from det_heads.coding import BoxCoder
from det_heads.config import RPNConfig
from det_heads.losses import rpn_losses
from det_heads.matching import GroundTruth, Samples, match, subsample
from det_heads.parts import WHOLE, BatchPart
from det_heads.proposals import Proposals, select_proposals
from det_heads.rpn import RPNHead

__all__ = ["RegionProposals"]


class RegionProposals(RPNHead):
    """The region proposal network (Faster R-CNN, section 3.1) with all that trains it and reads it.

    Shapes: `B` images, `N` anchors of an image over all levels, `S` samples, `K` proposals.

    Args:
        channels: Channels of the pyramid.
        config: Its conventions.
        offset: Width convention, see :class:`~det_heads.BoxCoder`.
    """

    def __init__(self, channels: int, config: RPNConfig, offset: float = 0.0) -> None:
        super().__init__(channels, config.anchors.per_cell, config.convs)
        self.config = config
        self.coder = BoxCoder(config.coding, offset)

    def losses(
        self,
        features: Sequence[Tensor],
        anchors: Tensor,
        truth: GroundTruth,
        image_sizes: Tensor,
        part: BatchPart = WHOLE,
    ) -> dict[str, Tensor]:
        """Compute ``loss_rpn_cls`` and ``loss_rpn_box`` at sampled anchors.

        Args:
            features: Per level [B, C, H, W].
            anchors: [N, 4].
            truth: Objects.
            image_sizes: [B, 2] (height, width).
            part: Which part of a larger batch this is.
        """
        samples = self.sample(anchors, truth, image_sizes, part)
        logits, deltas = self.at(features, samples.index)  # [B, S], [B, S, 4]
        objectness, regression = rpn_losses(logits, deltas, samples, self.config, self.coder, part)
        return {"loss_rpn_cls": objectness, "loss_rpn_box": regression}

    @torch.no_grad()
    def sample(self, anchors: Tensor, truth: GroundTruth, image_sizes: Tensor, part: BatchPart = WHOLE) -> Samples:
        """Draw the anchors that train the network; their label is 0 for objects and 1 for background.

        Args:
            anchors: [N, 4].
            truth: Objects.
            image_sizes: [B, 2] (height, width).
            part: Which part of a larger batch this is.
        """
        config = self.config
        inside, candidates = None, anchors
        if config.anchors.straddle is not None:
            inside = inside_image(anchors, image_sizes, config.anchors.straddle)  # [B, N]
            if not config.anchors.match_straddling:
                candidates = torch.where(inside[..., None], anchors, 0.0)  # these overlap nothing
        matches = match(
            candidates,
            inside,
            truth,
            positive_iou=config.positive_iou,
            negative_iou=config.negative_iou,
            low_quality=config.low_quality_matches,
            low_quality_iou=config.low_quality_iou,
            reassign_low_quality=config.reassign_low_quality,
            offset=self.coder.offset,
        )
        keys = part.random_keys(truth.boxes.shape[0], anchors.shape[0], anchors.device)
        objects = truth._replace(labels=torch.zeros_like(truth.labels))
        return subsample(
            anchors, matches, objects, keys, count=config.samples, fraction=config.positive_fraction, num_classes=1
        )

    @torch.no_grad()
    def propose(self, features: Sequence[Tensor], anchors: Tensor, image_sizes: Tensor) -> Proposals:
        """Propose boxes; how many depends on whether the module is in training mode.

        In training this is the second time that the head runs. The losses see a few hundred of some 200 000 anchors,
        so they compute the head at these alone (:meth:`RPNHead.at`), and this pass over all of them needs no gradient.
        Losses of the dense outputs instead would save it and cost the dense backward pass: forward and backward, 3.6 s
        instead of 1.1 s on a CPU core for an image of 800 x 1344 pixels.

        Args:
            features: Per level [B, C, H, W].
            anchors: [N, 4].
            image_sizes: [B, 2] (height, width).
        """
        logits, deltas = self(features)
        return select_proposals(logits, deltas, anchors, image_sizes, self.config, self.coder, training=self.training)
