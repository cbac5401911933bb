"""YOLACT assembled: body, pyramid, and the detector on it."""

import torch

from apps.yolact.config import YolactBackboneConfig, YolactRecipe
from det_backbones import FPN, DarkNet, Deformable, ResNet, ResNetFPN, resnet
from det_heads import Yolact
from det_ops import Conv2d, deform_conv2d


def yolact(recipe: YolactRecipe) -> Yolact:
    """The network of a recipe, randomly initialised as YOLACT does it; NHWC, which convolutions prefer."""
    return assembled(recipe).to(memory_format=torch.channels_last)


def assembled(recipe: YolactRecipe) -> Yolact:
    """The same in PyTorch's usual layout."""
    config = recipe.backbone
    body = darknet(config) if config.kind == "darknet53" else residual(config)
    pyramid = FPN(
        body.out_channels[-3:],
        config.pyramid_channels,
        max_pool_level=False,
        strided_levels=2,
        upsampling="bilinear",
        activation=True,
        initialization=config.pyramid_init,
    )
    detector = Yolact(ResNetFPN(body, pyramid), recipe.detector)
    Conv2d.convert(detector)
    return detector


def darknet(config: YolactBackboneConfig) -> DarkNet:
    """DarkNet-53."""
    return DarkNet(norm=config.norm, norm_eps=config.norm_eps)


def residual(config: YolactBackboneConfig) -> ResNet:
    """The residual network, with deformable convolutions where the recipe wants them."""
    deformable = None
    if any(config.deformable_blocks):
        deformable = Deformable(
            operator=deform_conv2d, blocks=config.deformable_blocks, interval=config.deformable_interval
        )
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
