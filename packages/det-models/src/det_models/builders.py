"""From a configuration to a network, randomly initialised as its system does it."""

import torch

from det_backbones import FPN, DarkNet, Deformable, ResNet, ResNetFPN, TimmBody, resnet, timm_backbone
from det_heads import CascadeDetector, TwoStageDetector, Yolact, YolactConfig
from det_models.config import BackboneConfig, ModelConfig, YolactBackboneConfig
from det_models.detector_config import DetectorConfig
from det_ops import Conv2d, deform_conv2d

__all__ = ["Detector", "backbone", "build", "two_stage", "yolact"]

Detector = TwoStageDetector | Yolact


def build(config: ModelConfig) -> Detector:
    """The network of a configuration, in NHWC, which convolutions prefer.

    Raises:
        ValueError: Its fields do not go together, such as more frozen stages than there are.
    """
    if isinstance(config.detector, YolactConfig):
        assert isinstance(config.backbone, YolactBackboneConfig)
        network: Detector = yolact(config.backbone, config.detector)
    else:
        network = two_stage(config.backbone, config.detector)
    return network.to(memory_format=torch.channels_last)


def backbone(config: BackboneConfig) -> ResNetFPN:
    """The body and its pyramid.

    Raises:
        ValueError: Fields that do not go together, or a network of timm that gives no pyramid of features.
        ImportError: The body is a network of timm, which is not installed.
    """
    body = residual(config)
    pyramid = FPN(
        body.out_channels,
        config.pyramid_channels,
        norm=config.pyramid_norm,
        norm_eps=config.norm_eps,
        initialization=config.pyramid_init,
    )
    return ResNetFPN(body, pyramid)


def two_stage(config: BackboneConfig, detector: DetectorConfig) -> TwoStageDetector:
    """A two-stage detector: residual network, pyramid, proposals and the heads that look at boxes."""
    kind = TwoStageDetector if detector.cascade is None else CascadeDetector
    network = kind(backbone(config), detector)
    Conv2d.convert(network)
    return network


def yolact(config: YolactBackboneConfig, detector: YolactConfig) -> Yolact:
    """YOLACT or YOLACT++: body, YOLACT's pyramid, and the detector on it."""
    body = darknet(config) if config.kind == "darknet53" else residual(config, _deformable(config))
    pyramid = FPN(
        body.out_channels[-3:],
        config.pyramid_channels,
        max_pool_level=False,
        strided_levels=2,
        upsampling="bilinear",
        activation=True,
        initialization=config.pyramid_init,
    )
    network = Yolact(ResNetFPN(body, pyramid), detector)
    Conv2d.convert(network)
    return network


def darknet(config: YolactBackboneConfig) -> DarkNet:
    """DarkNet-53."""
    return DarkNet(norm=config.norm, norm_eps=config.norm_eps)


def residual(config: BackboneConfig, deformable: Deformable | None = None) -> ResNet | TimmBody:
    """The residual network, or the network of timm that the configuration names."""
    if config.name.startswith("timm/"):
        return timm_backbone(config.name, norm=config.norm, freeze_at=config.freeze_at)
    return resnet(
        config.depth,
        norm=config.norm,
        norm_eps=config.norm_eps,
        stride_in_1x1=config.stride_in_1x1,
        groups=config.groups,
        width_per_group=config.width_per_group,
        width=config.width,
        freeze_at=config.freeze_at,
        deformable=deformable,
    )


def _deformable(config: YolactBackboneConfig) -> Deformable | None:
    if not any(config.deformable_blocks):
        return None
    return Deformable(operator=deform_conv2d, blocks=config.deformable_blocks, interval=config.deformable_interval)
