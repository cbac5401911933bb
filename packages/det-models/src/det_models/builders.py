"""From a configuration to a network made of parts, randomly initialised as its system does it."""

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from det_backbones import FPN, DarkNet, Deformable, ResNet, ResNetFPN, SimplePyramid, TimmBody, resnet, timm_backbone
from det_heads import (
    Anchors,
    BoxCoder,
    BoxHead,
    CascadeBoxHeads,
    CascadeMaskHeads,
    DenseHead,
    DistanceCoder,
    IoUAssignment,
    LocationAssignment,
    MaskHead,
    Normalize,
    OneStageConfig,
    OneStageDetector,
    RegionProposals,
    TwoStageDetector,
    Yolact,
    YolactConfig,
)
from det_models.config import BackboneConfig, ModelConfig, OneStageBackboneConfig, YolactBackboneConfig
from det_models.detector_config import DetectorConfig
from det_ops import Conv2d, deform_conv2d

__all__ = ["Detector", "backbone", "build", "one_stage", "two_stage", "yolact"]

Detector = TwoStageDetector | OneStageDetector | Yolact


def build(config: ModelConfig) -> Detector:
    """Build the network of a configuration, in NHWC, which convolutions prefer.

    Raises:
        ValueError: Its fields do not go together, such as more frozen stages than there are.
    """
    if isinstance(config.detector, YolactConfig):
        assert isinstance(config.backbone, YolactBackboneConfig)
        network: Detector = yolact(config.backbone, config.detector)
    elif isinstance(config.detector, OneStageConfig):
        network = one_stage(backbone(config.backbone), config.detector)
    else:
        network = two_stage(backbone(config.backbone), config.detector)
    return network.to(memory_format=torch.channels_last)


def backbone(config: BackboneConfig) -> ResNetFPN:
    """Build the body and its pyramid.

    Raises:
        ValueError: Fields that do not go together, or a network of timm that gives no pyramid of features.
        ImportError: The body is a network of timm, which is not installed.
    """
    body = residual(config)
    if len(body.strides) == 1:
        if isinstance(config, OneStageBackboneConfig):
            raise ValueError(f"RetinaNet's pyramid needs stages of strides 8, 16 and 32; {config.name} has one of 16.")
        if config.pyramid_norm is not None:
            raise ValueError(f"The pyramid of {config.name} has norms of its own: pyramid_norm must be None.")
        return ResNetFPN(body, SimplePyramid(body.out_channels[0], config.pyramid_channels))
    more: dict[str, Any] = {}
    inputs = body.out_channels
    if isinstance(config, OneStageBackboneConfig):
        inputs = inputs[-3:]
        more = {
            "max_pool_level": False,
            "strided_levels": 2,
            "strided_input": "input" if config.p6_input == "body" else "output",
            "strided_activation": config.p7_activation,
        }
    pyramid = FPN(
        inputs,
        config.pyramid_channels,
        norm=config.pyramid_norm,
        norm_eps=config.norm_eps,
        initialization=config.pyramid_init,
        **more,
    )
    return ResNetFPN(body, pyramid)


def two_stage(pyramid: nn.Module, config: DetectorConfig) -> TwoStageDetector:
    """Build a two-stage detector on a backbone.

    Args:
        pyramid: Maps images [B, 3, H, W] to as many levels as the anchors have, finest first; has ``out_channels``, one
            number for all of them, and ``strides``.
        config: Everything else.
    """
    channels, strides = int(pyramid.out_channels), tuple(int(stride) for stride in pyramid.strides)  # type: ignore[arg-type]
    network = TwoStageDetector(
        backbone=pyramid,
        anchors=Anchors(config.rpn.anchors, strides),
        proposals=RegionProposals(channels, config.rpn, config.offset),
        heads=region_heads(channels, strides, config),
        pixels=Normalize(config.pixels),
        ignore_iof=config.ignore_iof,
    )
    Conv2d.convert(network)
    return network


def region_heads(channels: int, strides: Sequence[int], config: DetectorConfig) -> dict[str, nn.Module]:
    """Build the box head and its branches, under the names that they have in a detector.

    Args:
        channels: Channels of the pyramid.
        strides: Pixels per cell of each level, finest first.
        config: Of the detector.
    """
    heads: dict[str, nn.Module] = {}
    shared: dict[str, Any] = {"strides": strides, "offset": config.offset, "init": config.init}
    cascade = config.cascade
    if cascade is None:
        heads["box_head"] = BoxHead(channels, config.num_classes, config.box, **shared)
    else:
        stages = [BoxHead(channels, config.num_classes, stage, **shared) for stage in cascade.stages(config.box)]
        heads["box_heads"] = CascadeBoxHeads(stages, cascade)
    for branch in config.branches.values():
        build_branch = partial(branch.build, channels, config.num_classes, **shared)
        if branch is config.mask and cascade is not None and cascade.mask_heads == "per_stage":
            heads["mask_heads"] = CascadeMaskHeads([cast("MaskHead", build_branch()) for _ in cascade.positive_ious])
        else:
            heads[branch.module] = build_branch()
    return heads


def one_stage(pyramid: nn.Module, config: OneStageConfig) -> OneStageDetector:
    """Build a RetinaNet, or an FCOS, on a backbone.

    Args:
        pyramid: Maps images [B, 3, H, W] to as many levels as the anchors have, finest first; has ``out_channels``, one
            number for all of them, and ``strides``.
        config: Everything else.
    """
    channels, strides = int(pyramid.out_channels), tuple(int(stride) for stride in pyramid.strides)  # type: ignore[arg-type]
    sizes, locations = config.anchors.sizes, config.locations
    network = OneStageDetector(
        backbone=pyramid,
        anchors=Anchors(config.anchors, strides),
        head=DenseHead(channels, config),
        assign=IoUAssignment(config) if locations is None else LocationAssignment(locations, sizes[0][0], sizes[-1][0]),
        coder=BoxCoder(config.coding) if locations is None else DistanceCoder(),
        config=config,
    )
    Conv2d.convert(network)
    return network


def yolact(config: YolactBackboneConfig, detector: YolactConfig) -> Yolact:
    """Build YOLACT or YOLACT++: body, YOLACT's pyramid, and the detector on it.

    Raises:
        ValueError: The body is a plain transformer, which has no stages for that pyramid.
    """
    body = darknet(config) if config.kind == "darknet53" else residual(config)
    if len(body.strides) == 1:
        raise ValueError(f"YOLACT's pyramid needs stages of strides 8, 16 and 32; {config.name} has one of 16.")
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
    """Build DarkNet-53."""
    return DarkNet(norm=config.norm, norm_eps=config.norm_eps, recompute=config.recompute)


def residual(config: BackboneConfig) -> ResNet | TimmBody:
    """Build the residual network, or the network of timm that the configuration names."""
    if config.name.startswith("timm/"):
        options = {"drop_path_rate": config.drop_path} if config.drop_path else {}
        return timm_backbone(config.name, norm=config.norm, freeze_at=config.freeze_at, **options)
    return resnet(
        config.depth,
        norm=config.norm,
        norm_eps=config.norm_eps,
        stride_in_1x1=config.stride_in_1x1,
        groups=config.groups,
        width_per_group=config.width_per_group,
        width=config.width,
        freeze_at=config.freeze_at,
        deformable=_deformable(config),
        recompute=config.recompute,
    )


def _deformable(config: BackboneConfig) -> Deformable | None:
    if not any(config.deformable_blocks):
        return None
    return Deformable(operator=deform_conv2d, blocks=config.deformable_blocks, interval=config.deformable_interval)
