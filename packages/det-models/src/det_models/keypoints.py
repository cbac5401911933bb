"""Keypoint R-CNN: Faster R-CNN with a branch that finds the keypoints of its objects."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from det_heads import KeypointHeadConfig
from det_models.checkpoints import add_names
from det_models.conventions import torchvision_config
from det_models.detector_config import DetectorConfig

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["KeypointDetectorConfig", "torchvision_keypoint_config"]

_CONVS = 8
"""Convolutions of torchvision's head."""


@dataclass(frozen=True, kw_only=True)
class KeypointDetectorConfig(DetectorConfig):
    """A two-stage detector with a keypoint branch.

    Attributes:
        keypoints: The branch.
    """

    keypoints: KeypointHeadConfig = field(default_factory=KeypointHeadConfig)

    @classmethod
    def of_tensors(cls, plain: DetectorConfig, tensors: Mapping[str, "Tensor"]) -> Self | None:
        """Recognise a keypoint head; see :meth:`DetectorConfig.of_tensors`."""
        predictor = tensors.get("keypoint_head.predictor.weight")  # [channels, J, 4, 4]
        if predictor is None:
            return None
        convs = sum(f"keypoint_head.convs.{layer}.weight" in tensors for layer in range(_CONVS))
        head = KeypointHeadConfig(num_keypoints=predictor.shape[1], convs=convs, channels=predictor.shape[0])
        return plain.extended(cls, keypoints=head)


def torchvision_keypoint_config(num_classes: int = 1, num_keypoints: int = 17) -> KeypointDetectorConfig:
    """``keypointrcnn_resnet50_fpn`` of torchvision.

    Source: torchvision/models/detection/keypoint_rcnn.py. Fits the same backbone as :func:`torchvision_config`.

    Args:
        num_classes: Object classes; persons alone in COCO.
        num_keypoints: Keypoints of an object.
    """
    head = KeypointHeadConfig(num_keypoints=num_keypoints)
    return torchvision_config(num_classes, mask=False).extended(KeypointDetectorConfig, keypoints=head)


for _system in ("torchvision", "torchvision-v2"):
    add_names(
        _system,
        # Between its convolutions are activations, which are numbered too.
        "\n".join(f"keypoint_head.convs.{layer} roi_heads.keypoint_head.{2 * layer}" for layer in range(_CONVS))
        + "\n keypoint_head.predictor roi_heads.keypoint_predictor.kps_score_lowres",
    )
