"""ResNet, ResNeXt and DarkNet backbones with feature pyramids, and readers of pretrained weights."""

from typing import TYPE_CHECKING

from det_backbones.__about__ import __version__
from det_backbones.lazy import lazily

if TYPE_CHECKING:
    from det_backbones.catalogue import WEIGHTS, PretrainedWeights, PublishedFile
    from det_backbones.darknet import DarkNet
    from det_backbones.deformable import Deformable, DeformConv2d
    from det_backbones.download import cache_directory, find_weights
    from det_backbones.errors import WeightsError
    from det_backbones.folding import FoldReport, fold_norms, fold_report
    from det_backbones.fpn import FPN, ResNetFPN
    from det_backbones.initialization import caffe2_xavier, kaiming_normal, normal, xavier_uniform
    from det_backbones.loading import LoadReport, load_imagenet_weights
    from det_backbones.norm import ChannelNorm, FrozenBatchNorm2d, Norm, convolve_and_normalize, make_norm
    from det_backbones.pixels import (
        CAFFE2_PIXELS,
        DARKNET_PIXELS,
        DETECTRON2_RESNEXT_PIXELS,
        MASKRCNN_BENCHMARK_PIXELS,
        MMDETECTION_PIXELS,
        TORCHVISION_PIXELS,
        YOLACT_PIXELS,
        PixelConfig,
    )
    from det_backbones.reading import WeightsFile, read_arrays, read_weights, write_weights
    from det_backbones.residual import BasicBlock, Bottleneck, ResNet, resnet, resnext101_32x8d
    from det_backbones.simple_pyramid import SimplePyramid
    from det_backbones.spec import BackboneSpec, Body, Pyramid
    from det_backbones.sync_norm import SyncBatchNorm2d
    from det_backbones.timm_body import TimmBody, timm_backbone
else:
    __getattr__, __dir__ = lazily(__name__, __file__)

__all__ = [
    "CAFFE2_PIXELS",
    "DARKNET_PIXELS",
    "DETECTRON2_RESNEXT_PIXELS",
    "FPN",
    "MASKRCNN_BENCHMARK_PIXELS",
    "MMDETECTION_PIXELS",
    "TORCHVISION_PIXELS",
    "WEIGHTS",
    "YOLACT_PIXELS",
    "BackboneSpec",
    "BasicBlock",
    "Body",
    "Bottleneck",
    "ChannelNorm",
    "DarkNet",
    "DeformConv2d",
    "Deformable",
    "FoldReport",
    "FrozenBatchNorm2d",
    "LoadReport",
    "Norm",
    "PixelConfig",
    "PretrainedWeights",
    "PublishedFile",
    "Pyramid",
    "ResNet",
    "ResNetFPN",
    "SimplePyramid",
    "SyncBatchNorm2d",
    "TimmBody",
    "WeightsError",
    "WeightsFile",
    "__version__",
    "cache_directory",
    "caffe2_xavier",
    "convolve_and_normalize",
    "find_weights",
    "fold_norms",
    "fold_report",
    "kaiming_normal",
    "load_imagenet_weights",
    "make_norm",
    "normal",
    "read_arrays",
    "read_weights",
    "resnet",
    "resnext101_32x8d",
    "timm_backbone",
    "write_weights",
    "xavier_uniform",
]
