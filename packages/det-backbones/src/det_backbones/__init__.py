"""ResNet / ResNeXt backbones with feature pyramids, and readers of pretrained weights."""

from det_backbones.__about__ import __version__
from det_backbones.fpn import FPN, ResNetFPN
from det_backbones.initialization import caffe2_xavier, kaiming_normal, xavier_uniform
from det_backbones.norm import FrozenBatchNorm2d, Norm, convolve_and_normalize, make_norm
from det_backbones.resnet import BasicBlock, Bottleneck, ResNet, resnet, resnext101_32x8d

__all__ = [
    "FPN",
    "BasicBlock",
    "Bottleneck",
    "FrozenBatchNorm2d",
    "Norm",
    "ResNet",
    "ResNetFPN",
    "__version__",
    "caffe2_xavier",
    "convolve_and_normalize",
    "kaiming_normal",
    "make_norm",
    "resnet",
    "resnext101_32x8d",
    "xavier_uniform",
]
