"""Random initialisation of the heads as each reference system does it."""

import math
from collections.abc import Sequence

from torch import nn

from det_backbones import caffe2_xavier, kaiming_normal, normal, xavier_uniform

__all__ = ["init_box_head", "init_mask_head", "init_rpn"]


def init_rpn(convs: Sequence[nn.Conv2d], objectness: nn.Conv2d, deltas: nn.Conv2d) -> None:
    """N(0, 0.01) and zero biases, in all systems."""
    for layer in (*convs, objectness, deltas):
        normal(layer, 0.01)


def init_box_head(
    convs: Sequence[nn.Conv2d], layers: Sequence[nn.Linear], cls_score: nn.Linear, bbox_pred: nn.Linear, system: str
) -> None:
    """Hidden layers and predictors of the box head.

    Args:
        convs: 3x3 convolutions; Kaiming normal by fan-out in all systems.
        layers: Hidden linear layers.
        cls_score: Classifier.
        bbox_pred: Box regressor.
        system: `torchvision` leaves PyTorch's default for linear layers; `detectron2` and `maskrcnn_benchmark` use
            uniform Xavier by fan-in for the hidden layers, N(0, 0.01) and N(0, 0.001) for the predictors; `mmdetection`
            differs from these in taking fan-in and fan-out.
    """
    for conv in convs:
        kaiming_normal(conv)
    if system == "torchvision":
        for layer in (*layers, cls_score, bbox_pred):
            layer.reset_parameters()
        return
    for layer in layers:
        if system == "mmdetection":
            xavier_uniform(layer)
        else:
            caffe2_xavier(layer)
    normal(cls_score, 0.01)
    normal(bbox_pred, 0.001)


def init_mask_head(convs: Sequence[nn.Conv2d], deconv: nn.ConvTranspose2d, predictor: nn.Conv2d, system: str) -> None:
    """Convolutions and predictor of the mask head.

    Args:
        convs: 3x3 convolutions.
        deconv: 2x2 transposed convolution.
        predictor: 1x1 convolution to the classes.
        system: All use Kaiming normal by fan-out; `detectron2` has N(0, 0.001) in the predictor, `torchvision` keeps
            PyTorch's default biases in the transposed convolution and the predictor.
    """
    for layer in (*convs, deconv, predictor):
        kaiming_normal(layer)
    if system == "detectron2":
        normal(predictor, 0.001)
    if system == "torchvision":
        for layer in (deconv, predictor):
            bound = 1 / math.sqrt(layer.weight[0].numel())
            if layer.bias is not None:
                nn.init.uniform_(layer.bias, -bound, bound)
