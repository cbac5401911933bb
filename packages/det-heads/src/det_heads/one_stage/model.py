"""One-stage detectors as one static program over a batch: RetinaNet and FCOS, which differ in their parts."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from det_heads.anchors import Anchors
from det_heads.coding import BoxCoder, DistanceCoder
from det_heads.matching import GroundTruth, Matches, Samples, ground_truth, label_all
from det_heads.one_stage.config import OneStageConfig
from det_heads.one_stage.detections import select_dense
from det_heads.one_stage.head import DenseHead
from det_heads.one_stage.losses import dense_losses
from det_heads.parts import WHOLE, BatchPart
from det_heads.pixels import Normalize
from det_heads.postprocess import ImageDetections, to_image
from det_heads.pyramid_detector import PyramidDetector

__all__ = ["OneStageDetector"]


class OneStageDetector(PyramidDetector):
    """A backbone and a head that classifies and refines every anchor.

    Training: ``losses = model(batch)``, a dict of float32 scalars ``loss_cls``, ``loss_box`` and of FCOS
    ``loss_centerness``. Inference: ``detections = model(batch)``, a dict of ``boxes`` [B, K, 4] in network coordinates,
    ``scores``, ``labels`` and ``valid`` [B, K]; :meth:`to_image` brings them to the original images.

    Shapes: `B` images of padded size `H, W`, `N` anchors, `K` detections. None of them depends on the data, and nothing
    is read back to the host.

    Args:
        backbone: Maps normalised images to a pyramid (P3, ..., P7) and, for learning rates by layer, has
            ``layer_groups()``.
        anchors: Anchors of the pyramid.
        head: Says what each anchor is.
        assign: Says what each anchor [N, 4] should be.
        coder: Box coding.
        config: Of losses and detections.
    """

    def __init__(
        self,
        backbone: nn.Module,
        anchors: Anchors,
        head: DenseHead,
        assign: Callable[[Tensor, GroundTruth], Matches],
        coder: BoxCoder | DistanceCoder,
        config: OneStageConfig,
    ) -> None:
        super().__init__(backbone, Normalize(config.pixels))
        self.config, self.assign, self.coder = config, assign, coder
        self.anchors = anchors
        self.head = head

    def forward(self, batch: Mapping[str, Tensor], part: BatchPart | None = None) -> dict[str, Tensor]:
        """Compute losses of a batch in training mode, detections otherwise.

        Args:
            batch: ``images`` [B, 3, H, W] and ``image_sizes`` [B, 2]; in training also ``boxes``, ``labels``,
                ``valid`` and ``crowd``.
            part: In training, which part of a larger batch this is.
        """
        features = self.backbone(self.normalize(batch))
        if not self.training:
            return self.from_features(features, batch)
        samples = self.sample(self._anchors(features, batch), ground_truth(batch, ignore_iof=self.config.ignore_iof))
        outputs = self.head(features)
        with torch.autocast(features[0].device.type, enabled=False):
            return dense_losses(outputs, samples, self.config, self.coder, part or WHOLE)

    def from_features(self, features: Sequence[Tensor], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Detect in a pyramid, as :meth:`forward` does in that of its backbone.

        Args:
            features: Per level [B, C, H / stride, W / stride].
            batch: As there.
        """
        outputs, anchors = self.head(features), self._anchors(features, batch)
        with torch.autocast(features[0].device.type, enabled=False):
            return select_dense(outputs, anchors, batch["image_sizes"], self.config, self.coder)

    @torch.no_grad()
    def sample(self, anchors: Tensor, truth: GroundTruth) -> Samples:
        """Give all anchors [N, 4] of the images their objects."""
        everywhere = anchors.expand(truth.boxes.shape[0], -1, -1)
        return label_all(everywhere, self.assign(anchors, truth), truth, num_classes=self.config.num_classes)

    def _anchors(self, features: Sequence[Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        image_shape = (batch["images"].shape[-2], batch["images"].shape[-1])
        return self.anchors([(f.shape[-2], f.shape[-1]) for f in features], image_shape)  # [N, 4]

    def to_image(
        self, detections: Mapping[str, Tensor], scales: Tensor, original_sizes: Sequence[tuple[int, int]]
    ) -> list[ImageDetections]:
        """Bring detections to the pixels of the original images, resized by `scales` [B, 2]; see :func:`to_image`."""
        return to_image(detections, scales, original_sizes)
