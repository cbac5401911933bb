"""Two-stage detectors as one static program over a batch: Faster, Mask and Cascade R-CNN, and what branches make."""

from collections.abc import Mapping, Sequence
from typing import cast

from torch import Tensor, nn

from det_heads.anchors import Anchors
from det_heads.box_head import BoxHead
from det_heads.branches import Branch
from det_heads.cascade import CascadeBoxHeads
from det_heads.matching import ground_truth
from det_heads.parts import WHOLE, BatchPart
from det_heads.pixels import Normalize
from det_heads.postprocess import ImageDetections, to_image
from det_heads.pyramid_detector import PyramidDetector
from det_heads.region_proposals import RegionProposals

__all__ = ["TwoStageDetector"]


class TwoStageDetector(PyramidDetector):
    """A backbone, region proposals, a box head that looks at them, and branches that look at its boxes.

    Training: ``losses = model(batch)``, a dict of float32 scalars, ``loss_rpn_cls``, ``loss_rpn_box``, ``loss_cls``,
    ``loss_box`` and the branches', such as ``loss_mask``. Inference: ``detections = model(batch)``, a dict of ``boxes``
    [B, K, 4] in network coordinates, ``scores`` [B, K], ``labels`` [B, K], ``valid`` [B, K] and what the branches find,
    such as ``masks`` [B, K, 28, 28]; :meth:`to_image` brings them to the original images.

    Shapes: `B` images of padded size `H, W`, `N` anchors, `K` detections. None of them depends on the data, and nothing
    is read back to the host.

    Args:
        backbone: Maps normalised images to a pyramid (P2, P3, P4, P5, P6) and, for learning rates by layer, has
            ``layer_groups()``.
        anchors: Anchors of the pyramid.
        proposals: The first stage.
        heads: The second stage, each module under the name that its parameters' names begin with: the box head first,
            ``box_head`` or in a cascade ``box_heads``, then any number of branches (:class:`~det_heads.Branch`), such
            as ``mask_head``.
        pixels: Makes the backbone's input.
        ignore_iof: In training, share of an anchor or proposal in a crowd or ignored region from which on it is no
            background; None: such regions are background.
    """

    def __init__(
        self,
        backbone: nn.Module,
        anchors: Anchors,
        proposals: RegionProposals,
        heads: Mapping[str, nn.Module],
        pixels: Normalize,
        ignore_iof: float | None = None,
    ) -> None:
        super().__init__(backbone, pixels)
        self.ignore_iof = ignore_iof
        self.anchors = anchors
        self.rpn = proposals
        self.head_names = tuple(heads)
        for name, head in heads.items():
            self.add_module(name, head)

    @property
    def boxes(self) -> BoxHead | CascadeBoxHeads:
        """The box head, or those of a cascade."""
        return cast("BoxHead | CascadeBoxHeads", self.get_submodule(self.head_names[0]))

    @property
    def branches(self) -> list[Branch]:
        """What looks at its boxes."""
        return [cast("Branch", self.get_submodule(name)) for name in self.head_names[1:]]

    def forward(self, batch: Mapping[str, Tensor], part: BatchPart | None = None) -> dict[str, Tensor]:
        """Compute losses of a batch in training mode, detections otherwise.

        Args:
            batch: ``images`` [B, 3, H, W] and ``image_sizes`` [B, 2]; in training also the truth: ``boxes``,
                ``labels``, ``valid``, ``crowd``, ``scales`` and what the branches learn from.
            part: In training, which part of a larger batch this is.
        """
        features = self.backbone(self.normalize(batch))  # per level [B, C, H / stride, W / stride]
        if self.training:
            return self._losses(batch, features, part or WHOLE)
        return self.from_features(features, batch)

    def from_features(self, features: Sequence[Tensor], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Detect in a pyramid, as :meth:`forward` does in that of its backbone.

        Args:
            features: Per level [B, C, H / stride, W / stride].
            batch: As there.
        """
        detections = self.detect_boxes(features, batch)
        for branch in self.branches:
            detections |= branch.detect(features, detections)
        return detections

    def detect_boxes(self, features: Sequence[Tensor], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Detect as :meth:`from_features` does, without its branches.

        Args:
            features: Per level [B, C, H / stride, W / stride].
            batch: As there.
        """
        proposals = self.rpn.propose(features, self._anchors(features, batch), batch["image_sizes"])
        return self.boxes.detect(features, proposals, batch["image_sizes"])

    def _anchors(self, features: Sequence[Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        image_shape = (batch["images"].shape[-2], batch["images"].shape[-1])
        return self.anchors([(f.shape[-2], f.shape[-1]) for f in features], image_shape)  # [N, 4]

    def _losses(self, batch: Mapping[str, Tensor], features: Sequence[Tensor], part: BatchPart) -> dict[str, Tensor]:
        sizes, anchors = batch["image_sizes"], self._anchors(features, batch)
        truth = ground_truth(batch, self.rpn.coder.offset, self.ignore_iof)
        losses = self.rpn.losses(features, anchors, truth, sizes, part)
        proposals = self.rpn.propose(features, anchors, sizes)
        return losses | self.boxes.losses(batch, features, proposals, truth, self.branches, part)

    def to_image(
        self, detections: Mapping[str, Tensor], scales: Tensor, original_sizes: Sequence[tuple[int, int]]
    ) -> list[ImageDetections]:
        """Bring detections to the pixels of the original images, resized by `scales` [B, 2]; see :func:`to_image`."""
        branches = [branch.to_image for branch in self.branches]
        return to_image(detections, scales, original_sizes, offset=self.rpn.coder.offset, branches=branches)
