"""RetinaNet and FCOS as the reference systems have them: complete configurations, and whole networks by name."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from det_backbones import MMDETECTION_PIXELS, TORCHVISION_PIXELS
from det_heads import AnchorConfig, BoxCodingConfig, LocationConfig, OneStageConfig
from det_heads.one_stage.config import octaves
from det_models.config import OneStageBackboneConfig

if TYPE_CHECKING:
    from det_heads import OneStageDetector

__all__ = [
    "detectron2_fcos_config",
    "detectron2_retinanet_config",
    "fcos_r50_fpn",
    "mmdetection_retinanet_config",
    "retinanet_r50_fpn",
    "torchvision_fcos_config",
    "torchvision_retinanet_config",
    "torchvision_retinanet_v2_config",
]

_SQUARES = ((8.0,), (16.0,), (32.0,), (64.0,), (128.0,))


def detectron2_retinanet_config(num_classes: int = 80) -> OneStageConfig:
    """``retinanet_R_50_FPN_*`` of detectron2.

    Source: facebookresearch/detectron2, configs/Base-RetinaNet.yaml and detectron2/modeling/meta_arch/retinanet.py.
    Fits a backbone with MSRA weights, stride in the first 1x1 convolution, P6 from C5. Its losses are divided by a
    running mean of the number of positives; see :class:`~det_heads.OneStageConfig`.

    Args:
        num_classes: Object classes.
    """
    return OneStageConfig(num_classes=num_classes)


def detectron2_fcos_config(num_classes: int = 80) -> OneStageConfig:
    """``fcos_R_50_FPN_1x`` of detectron2.

    Source: facebookresearch/detectron2, configs/common/models/fcos.py and detectron2/modeling/meta_arch/fcos.py.
    Fits the same backbone as :func:`detectron2_retinanet_config`, but with P6 from P5.

    Args:
        num_classes: Object classes.
    """
    return OneStageConfig(
        num_classes=num_classes,
        anchors=AnchorConfig(sizes=_SQUARES, ratios=(1.0,)),
        locations=LocationConfig(),
        norm="gn",
        box_loss="giou",
        score_threshold=0.2,
        nms_threshold=0.6,
    )


def torchvision_retinanet_config(num_classes: int = 90) -> OneStageConfig:
    """``retinanet_resnet50_fpn`` of torchvision.

    Source: torchvision/models/detection/retinanet.py. Fits a backbone with torchvision weights, P6 from P5.

    Args:
        num_classes: Object classes; torchvision's own COCO models count category ids, 90 (91 with background).
    """
    return OneStageConfig(
        num_classes=num_classes,
        pixels=TORCHVISION_PIXELS,
        anchors=AnchorConfig(sizes=octaves(whole=True), rounding="round", grid="image"),
        normalizer="image",
        clip="before",
        max_detections=300,
    )


def torchvision_retinanet_v2_config(num_classes: int = 90) -> OneStageConfig:
    """``retinanet_resnet50_fpn_v2`` of torchvision: normalised towers, trained by GIoU.

    Source: torchvision/models/detection/retinanet.py. Fits a backbone with batch normalisation, P6 from C5.

    Args:
        num_classes: As in :func:`torchvision_retinanet_config`.
    """
    return replace(torchvision_retinanet_config(num_classes), norm="gn", norm_bias=False, box_loss="giou")


def torchvision_fcos_config(num_classes: int = 90) -> OneStageConfig:
    """``fcos_resnet50_fpn`` of torchvision.

    Source: torchvision/models/detection/fcos.py. Fits the same backbone as :func:`torchvision_retinanet_config`.

    Args:
        num_classes: As there.
    """
    config = detectron2_fcos_config(num_classes)
    return replace(
        config,
        pixels=TORCHVISION_PIXELS,
        anchors=replace(config.anchors, rounding="round", grid="image"),
        clip="before",
    )


def mmdetection_retinanet_config(num_classes: int = 80) -> OneStageConfig:
    """``retinanet_r50_fpn_*`` of mmdetection 2 and 3.

    Source: open-mmlab/mmdetection, configs/_base_/models/retinanet_r50_fpn.py. Fits a backbone with torchvision
    weights, P6 from C5, without a ReLU before P7.

    Args:
        num_classes: Object classes.
    """
    return OneStageConfig(
        num_classes=num_classes,
        pixels=MMDETECTION_PIXELS,
        coding=BoxCodingConfig(clamp_below=True),
        reassign_low_quality=True,
        clip="before",
    )


@dataclass(frozen=True)
class _Published:
    """What a system publishes.

    Attributes:
        head: Makes the configuration of a number of classes.
        body: What it stands on.
    """

    head: Callable[[int], OneStageConfig]
    body: OneStageBackboneConfig


_TORCHVISION = OneStageBackboneConfig(stride_in_1x1=False, p6_input="pyramid")
_RETINANETS = {
    "detectron2": _Published(detectron2_retinanet_config, OneStageBackboneConfig()),
    "torchvision": _Published(torchvision_retinanet_config, _TORCHVISION),
    "torchvision_v2": _Published(
        torchvision_retinanet_v2_config, OneStageBackboneConfig(stride_in_1x1=False, norm="bn", freeze_at=0)
    ),
    "mmdetection": _Published(
        mmdetection_retinanet_config,
        OneStageBackboneConfig(
            stride_in_1x1=False, norm="frozen_statistics_bn", pyramid_init="xavier", p7_activation=False
        ),
    ),
}
_FCOS = {
    "detectron2": _Published(detectron2_fcos_config, OneStageBackboneConfig(p6_input="pyramid")),
    "torchvision": _Published(torchvision_fcos_config, _TORCHVISION),
}


def _build(table: dict[str, _Published], conventions: str, num_classes: int) -> "OneStageDetector":
    if conventions not in table:
        raise ValueError(f"conventions must be one of {', '.join(table)}, got {conventions!r}")
    from det_models.builders import backbone, one_stage

    published = table[conventions]
    return one_stage(backbone(published.body), published.head(num_classes))


def retinanet_r50_fpn(
    num_classes: int = 80,
    conventions: Literal["detectron2", "torchvision", "torchvision_v2", "mmdetection"] = "detectron2",
) -> "OneStageDetector":
    """Build RetinaNet with ResNet-50 and FPN (arXiv:1708.02002).

    Args:
        num_classes: Object classes, without background.
        conventions: Whose: what else the weights of a system mean.

    Raises:
        ValueError: There is no such system.
    """
    return _build(_RETINANETS, conventions, num_classes)


def fcos_r50_fpn(
    num_classes: int = 80, conventions: Literal["detectron2", "torchvision"] = "detectron2"
) -> "OneStageDetector":
    """Build FCOS with ResNet-50 and FPN (arXiv:1904.01355, 2006.09214).

    Args:
        num_classes: Object classes, without background.
        conventions: As in :func:`retinanet_r50_fpn`.

    Raises:
        ValueError: There is no such system.
    """
    return _build(_FCOS, conventions, num_classes)
