"""Whole detectors by name, as their systems publish them, with random weights.

For the weights of a file, see :mod:`det_models.checkpoints`; for other sizes, :func:`det_models.two_stage` and
:func:`det_models.yolact`, which build these too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from det_heads import TwoStageDetector, Yolact, yolact_config, yolact_plus_config
from det_models import conventions as systems
from det_models.builders import backbone, two_stage, yolact
from det_models.config import BackboneConfig, YolactBackboneConfig
from det_models.detector_config import DetectorConfig

__all__ = [
    "cascade_mask_rcnn_r50_fpn",
    "cascade_rcnn_r50_fpn",
    "faster_rcnn_r50_fpn",
    "mask_rcnn_r50_fpn",
    "yolact_darknet53",
    "yolact_plus_resnet50",
    "yolact_resnet50",
    "yolact_resnet101",
]

System = Literal["detectron2", "torchvision", "torchvision_v2", "maskrcnn_benchmark", "mmdetection"]
CascadeSystem = Literal["detectron2", "mmdetection"]


@dataclass(frozen=True)
class _Published:
    """What a system's detectors of a kind have in common.

    Attributes:
        heads: Makes their configuration, of a number of classes, with masks or without.
        body: The residual network and pyramid that they stand on.
    """

    heads: Callable[..., DetectorConfig]
    body: BackboneConfig


_TORCHVISION = BackboneConfig(stride_in_1x1=False, freeze_at=2)
_MMDETECTION = BackboneConfig(stride_in_1x1=False, norm="frozen_statistics_bn", pyramid_init="xavier")
_PLAIN = {
    "detectron2": _Published(systems.detectron2_config, BackboneConfig()),
    "torchvision": _Published(systems.torchvision_config, _TORCHVISION),
    "torchvision_v2": _Published(
        systems.torchvision_v2_config,
        BackboneConfig(stride_in_1x1=False, norm="bn", pyramid_norm="bn", freeze_at=0),
    ),
    "maskrcnn_benchmark": _Published(systems.maskrcnn_benchmark_config, BackboneConfig(norm_eps=0.0)),
    "mmdetection": _Published(systems.mmdetection_config, _MMDETECTION),
}
_CASCADES = {
    "detectron2": _Published(systems.detectron2_cascade_config, BackboneConfig()),
    "mmdetection": _Published(systems.mmdetection_cascade_config, _MMDETECTION),
}


def _build(table: dict[str, _Published], conventions: str, num_classes: int, *, mask: bool) -> TwoStageDetector:
    if conventions not in table:
        raise ValueError(f"conventions must be one of {', '.join(table)}, got {conventions!r}")
    published = table[conventions]
    return two_stage(backbone(published.body), published.heads(num_classes, mask=mask))


def faster_rcnn_r50_fpn(num_classes: int = 80, conventions: System = "detectron2") -> TwoStageDetector:
    """Build Faster R-CNN with ResNet-50 and FPN (arXiv:1506.01497, 1612.03144).

    Args:
        num_classes: Object classes, without background.
        conventions: Whose: what else the weights of a system mean, see :mod:`det_models.conventions`.

    Raises:
        ValueError: There is no such system.
    """
    return _build(_PLAIN, conventions, num_classes, mask=False)


def mask_rcnn_r50_fpn(num_classes: int = 80, conventions: System = "detectron2") -> TwoStageDetector:
    """Build Mask R-CNN with ResNet-50 and FPN (arXiv:1703.06870).

    Args:
        num_classes: Object classes, without background.
        conventions: As in :func:`faster_rcnn_r50_fpn`.

    Raises:
        ValueError: There is no such system.
    """
    return _build(_PLAIN, conventions, num_classes, mask=True)


def cascade_rcnn_r50_fpn(num_classes: int = 80, conventions: CascadeSystem = "detectron2") -> TwoStageDetector:
    """Build Cascade R-CNN with ResNet-50 and FPN (arXiv:1712.00726).

    Args:
        num_classes: Object classes, without background.
        conventions: As in :func:`faster_rcnn_r50_fpn`.

    Raises:
        ValueError: There is no such system, or it has no cascades.
    """
    return _build(_CASCADES, conventions, num_classes, mask=False)


def cascade_mask_rcnn_r50_fpn(num_classes: int = 80, conventions: CascadeSystem = "detectron2") -> TwoStageDetector:
    """Build Cascade Mask R-CNN with ResNet-50 and FPN (arXiv:1906.09756).

    Args:
        num_classes: Object classes, without background.
        conventions: As in :func:`faster_rcnn_r50_fpn`.

    Raises:
        ValueError: There is no such system, or it has no cascades.
    """
    return _build(_CASCADES, conventions, num_classes, mask=True)


def yolact_resnet50(num_classes: int = 80, size: int = 550) -> Yolact:
    """Build YOLACT with ResNet-50 (arXiv:1904.02689).

    Args:
        num_classes: Object classes, without background.
        size: Side of the network's input in pixels; the priors grow with it.
    """
    return yolact(YolactBackboneConfig(depth=50), yolact_config(num_classes, size=size))


def yolact_resnet101(num_classes: int = 80, size: int = 550) -> Yolact:
    """Build `yolact_base`: YOLACT with ResNet-101; arguments as in :func:`yolact_resnet50`."""
    return yolact(YolactBackboneConfig(depth=101), yolact_config(num_classes, size=size))


def yolact_darknet53(num_classes: int = 80, size: int = 550) -> Yolact:
    """Build YOLACT with DarkNet-53; arguments as in :func:`yolact_resnet50`."""
    return yolact(YolactBackboneConfig(kind="darknet53"), yolact_config(num_classes, size=size, darknet=True))


def yolact_plus_resnet50(num_classes: int = 80) -> Yolact:
    """Build YOLACT++ with ResNet-50 (arXiv:1912.06218), of `num_classes` object classes, for images of 550 pixels."""
    return yolact(_PLUS, yolact_plus_config(num_classes))


_PLUS = YolactBackboneConfig(depth=50, deformable_blocks=(0, 4, 6, 3))
