"""What a head of one's own must do to look at a detector's boxes."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from det_heads.matching import Samples
from det_heads.parts import BatchPart
from det_heads.postprocess import Original

__all__ = ["Branch"]


class Branch(Protocol):
    """An `nn.Module` beside the box head: masks (:class:`~det_heads.MaskHead`), or something new.

    A :class:`~det_heads.TwoStageDetector` takes any number of them, each under a name of its own. In a step the shapes
    of all tensors follow from the configuration, never from the data, and nothing is read back to the host.
    Shapes: `B` images, `S` samples, `K` detections, `N` detections of one image.
    """

    def losses(
        self, batch: Mapping[str, Tensor], features: Sequence[Tensor], samples: Samples, part: BatchPart
    ) -> dict[str, Tensor]:
        """Compute the losses of a batch in training.

        Args:
            batch: All its tensors, the branch's truth among them.
            features: The pyramid, per level [B, C, H, W].
            samples: The boxes that train the (first) box head, [B, S]; ``truth_index`` is the slot of the object in
                the batch, and only the first ``max_positives`` slots of an image can be positive.
            part: Which part of a larger batch this is; its ``denominator`` divides sums over what was counted.

        Returns:
            float32 scalars; their names begin with ``loss_`` and are this branch's alone.
        """
        ...

    def detect(self, features: Sequence[Tensor], detections: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute what the branch finds in detected boxes.

        Args:
            features: The pyramid, per level [B, C, H, W].
            detections: ``boxes`` [B, K, 4] in network coordinates, ``scores``, ``labels`` and ``valid`` [B, K].

        Returns:
            Tensors [B, K, ...] by name, which join the detections.
        """
        ...

    def to_image(self, found: Mapping[str, Tensor], boxes: Tensor, original: Original) -> dict[str, Any]:
        """Bring what was found in one image to its original pixels; runs on the host, after the static program.

        Args:
            found: All tensors of the detections, [N, ...] on the CPU, floating ones in float32.
            boxes: [N, 4] in original pixels, in the detector's width convention.
            original: The image before it was resized.

        Returns:
            By name what has an entry for each detection: fields of :class:`~det_heads.ImageDetections`, or anything
            else, which becomes part of its ``extra``.
        """
        ...
