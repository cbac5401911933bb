"""YOLACT and YOLACT++ as one static program over a batch.

Shapes: `B` images of size `H x W`, `N` priors, `M` object slots, `C` classes, `P` prototypes of size `h x w`, `K`
detections. None of them depends on the data, and nothing is read back to the host.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from det_heads.parts import WHOLE, BatchPart
from det_heads.pixels import Normalize
from det_heads.postprocess import ImageDetections, to_image
from det_heads.pyramid_detector import PyramidDetector
from det_heads.yolact import losses
from det_heads.yolact.config import YolactConfig, bitmap_sizes
from det_heads.yolact.detections import select
from det_heads.yolact.heads import MaskIoUNet, PredictionHead, ProtoNet, init_xavier
from det_heads.yolact.masks import assemble, crop, masks_to_image, scale
from det_heads.yolact.matching import PriorMatch, match_priors
from det_heads.yolact.priors import Priors

__all__ = ["Outputs", "Yolact"]


class Outputs(NamedTuple):
    """What the network says.

    Attributes:
        priors: [N, 4] as fractions of the image.
        deltas: [B, N, 4].
        logits: [B, N, C + 1], background first.
        coefficients: [B, N, P].
        prototypes: [B, P, h, w].
    """

    priors: Tensor
    deltas: Tensor
    logits: Tensor
    coefficients: Tensor
    prototypes: Tensor


class Yolact(PyramidDetector):
    """Backbone, prediction head, protonet, semantic head, and for YOLACT++ the mask-IoU network.

    Training: ``losses = model(batch)``, a dict of float32 scalars ``loss_box``, ``loss_cls``, ``loss_mask``,
    ``loss_semantic`` and, for YOLACT++, ``loss_mask_iou``. Where no prior of the batch is positive they are all zero:
    the original's are not finite then, and it takes no step. Inference: ``detections = model(batch)``, a dict of
    ``boxes`` [B, K, 4] in network coordinates, ``scores``, ``labels``, ``valid`` [B, K], ``masks`` [B, K, h, w]
    (probabilities over the whole image, cropped to the boxes), and for YOLACT++ ``mask_scores`` [B, K];
    :meth:`to_image` brings them to the original images.

    The image fills the network's input: pictures are resized without keeping their aspect, and nothing is padded.

    Args:
        backbone: Maps normalised images to a pyramid (P3, ..., P7); has ``out_channels`` and, for learning rates by
            layer, ``layer_groups()``.
        config: Every constant.
    """

    def __init__(self, backbone: nn.Module, config: YolactConfig) -> None:
        super().__init__(backbone, Normalize(config.pixels))
        channels = int(backbone.out_channels)  # type: ignore[arg-type]
        self.config = config
        self.priors = Priors(config.priors)
        self.head = PredictionHead(
            channels, config.channels, config.priors.per_cell, config.num_classes, config.prototypes
        )
        self.protonet = ProtoNet(channels, config.channels, config.prototypes)
        self.semantic = nn.Conv2d(channels, config.num_classes, 1)
        init_xavier(self.semantic)
        self.mask_iou = None if config.mask_iou is None else MaskIoUNet(config.num_classes, config.mask_iou)

    def forward(self, batch: Mapping[str, Tensor], part: BatchPart | None = None) -> dict[str, Tensor]:
        """Losses of a batch in training mode, detections otherwise.

        Args:
            batch: ``images`` [B, 3, H, W] and ``image_sizes`` [B, 2]; in training also ``boxes``, ``labels``,
                ``valid``, ``crowd`` and the masks as bitmaps reduced to the sizes of the prototypes and of P3
                (``mask_bitmaps_<h>x<w>`` [B, M, h, w], see :meth:`bitmap_sizes`), or ``mask_bitmaps`` [B, M, H, W].
            part: In training, which part of a larger batch this is.
        """
        features = self.backbone(self.normalize(batch))
        if self.training:
            outputs = self.outputs(features, (batch["images"].shape[-2], batch["images"].shape[-1]))
            return self.losses(batch, outputs, self.semantic(features[0]), part or WHOLE)
        return self.from_features(features, batch)

    def from_features(self, features: Sequence[Tensor], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Detect in a pyramid, as :meth:`forward` does in that of its backbone.

        Args:
            features: Per level [B, C, H / stride, W / stride].
            batch: As there.
        """
        image_shape = (batch["images"].shape[-2], batch["images"].shape[-1])
        return self.detect(self.outputs(features, image_shape), image_shape)

    bitmap_sizes = staticmethod(bitmap_sizes)

    # Stages, in the order of their use.

    def outputs(self, features: Sequence[Tensor], image_shape: tuple[int, int]) -> Outputs:
        """Compute the heads' outputs for a pyramid P3, ..., P7 of [B, C, H, W] each."""
        shapes = [(feature.shape[-2], feature.shape[-1]) for feature in features]
        priors = self.priors(shapes, image_shape, features[0].device)
        deltas, logits, coefficients = self.head(features)
        return Outputs(priors, deltas, logits, coefficients, self.protonet(features[0]))

    def match(self, priors: Tensor, batch: Mapping[str, Tensor]) -> PriorMatch:
        """Match priors [N, 4] with objects."""
        return match_priors(priors, _boxes(batch), batch["valid"], batch["crowd"], self.config.loss)

    def losses(
        self, batch: Mapping[str, Tensor], outputs: Outputs, semantic: Tensor, part: BatchPart = WHOLE
    ) -> dict[str, Tensor]:
        """All losses.

        Args:
            batch: The truth.
            outputs: Of the heads.
            semantic: [B, C, H3, W3] logits of the semantic head.
            part: Which part of a larger batch this is.
        """
        with torch.autocast(semantic.device.type, enabled=False):
            return self._losses(batch, outputs, semantic, part)

    def _losses(
        self, batch: Mapping[str, Tensor], outputs: Outputs, semantic: Tensor, part: BatchPart
    ) -> dict[str, Tensor]:
        config, boxes, labels = self.config.loss, _boxes(batch), batch["labels"]
        match = self.match(outputs.priors, batch)
        positives = part.mean(match.positive.sum())
        keys = part.random_keys(match.positive.shape[0], match.positive.shape[1], boxes.device)
        samples = losses.sample_masks(match, keys, config.masks)
        mask, logits, inside, truth = losses.mask_losses(
            outputs.prototypes.float(),
            outputs.coefficients,
            samples,
            boxes,
            _bitmaps(batch, outputs.prototypes),
        )
        each = {
            "loss_box": config.box * losses.box_loss(outputs.deltas, outputs.priors, boxes, match),
            "loss_cls": config.classification
            * losses.classification_loss(outputs.logits, labels, match, config.negatives),
            "loss_mask": config.mask * mask,
        }
        if self.mask_iou is not None and self.config.mask_iou is not None:
            own = labels.gather(1, samples.slot)
            probabilities = logits.sigmoid() * inside
            loss = losses.mask_iou_loss(self.mask_iou, probabilities, truth, own, samples.used, self.config.mask_iou)
            each["loss_mask_iou"] = self.config.mask_iou.weight * loss
        each = {name: loss / part.at_least_one(positives) for name, loss in each.items()}
        usable = batch["valid"] & ~batch["crowd"]
        loss = losses.semantic_loss(semantic, _bitmaps(batch, semantic), labels, usable) / len(boxes)
        each["loss_semantic"] = config.semantic * loss * (positives > 0)
        return each

    def detect(self, outputs: Outputs, image_shape: tuple[int, int]) -> dict[str, Tensor]:
        """Detections with their masks, and scores of the masks in YOLACT++."""
        with torch.autocast(outputs.prototypes.device.type, enabled=False):
            found, prior = select(outputs.deltas, outputs.logits, outputs.priors, image_shape, self.config)
            width = outputs.coefficients.shape[-1]
            coefficients = outputs.coefficients.float().gather(1, prior[..., None].expand(-1, -1, width))
            found["masks"] = self.masks(outputs.prototypes.float(), coefficients, found["boxes"], image_shape)
            found["masks"].mul_(found["valid"][..., None, None])
            if self.mask_iou is not None:
                found["mask_scores"] = found["scores"] * self.estimate_iou(found["masks"], found["labels"])
        return found

    def masks(self, prototypes: Tensor, coefficients: Tensor, boxes: Tensor, image_shape: tuple[int, int]) -> Tensor:
        """Probabilities [B, K, h, w], zero outside of the boxes [B, K, 4], of coefficients [B, K, P]."""
        return crop(assemble(prototypes, coefficients).sigmoid_(), scale(boxes, image_shape, back=True))

    def estimate_iou(self, masks: Tensor, labels: Tensor) -> Tensor:
        """Estimate the IoU [B, K] that masks [B, K, h, w] of classes [B, K] have with their objects.

        Raises:
            ValueError: There is no mask-IoU network.
        """
        if self.mask_iou is None:
            raise ValueError("this YOLACT has no mask-IoU network; build it with a mask_iou configuration")
        rows = torch.full((), labels.numel(), dtype=torch.int64, device=labels.device)
        estimates = self.mask_iou(masks.flatten(0, 1), rows)
        return estimates.gather(1, labels.flatten()[:, None]).reshape(labels.shape)

    def to_image(
        self, detections: Mapping[str, Tensor], scales: Tensor, original_sizes: Sequence[tuple[int, int]]
    ) -> list[ImageDetections]:
        """Bring detections to the pixels of the original images, resized by `scales` [B, 2]; see :func:`to_image`."""
        return to_image(detections, scales, original_sizes, branches=[masks_to_image])


def _boxes(batch: Mapping[str, Tensor]) -> Tensor:
    """[B, M, 4] true boxes as fractions of the image."""
    return scale(batch["boxes"], (batch["images"].shape[-2], batch["images"].shape[-1]), back=True)


def _bitmaps(batch: Mapping[str, Tensor], like: Tensor) -> Tensor:
    """[B, M, h, w] bitmaps of the size of `like` [..., h, w]: those in the batch, or larger ones reduced."""
    size = (like.shape[-2], like.shape[-1])
    name = f"mask_bitmaps_{size[0]}x{size[1]}"
    if name in batch:
        return batch[name]
    if "mask_bitmaps" not in batch:
        raise ValueError(f"batch must have {name} or mask_bitmaps, got {', '.join(batch)}")
    return F.interpolate(batch["mask_bitmaps"].float(), size, mode="bilinear", align_corners=False) > 0.5
