"""Initial weights of layers, as the reference systems draw them. Each function changes a layer in place."""

from torch import nn

Layer = nn.Linear | nn.Conv2d | nn.ConvTranspose2d


def normal(layer: Layer, std: float) -> None:
    """Draws `weight` from N(0, std^2) and clears `bias`: predictors in all systems."""
    nn.init.normal_(layer.weight, std=std)
    _clear_bias(layer)


def kaiming_normal(layer: Layer) -> None:
    """Draws `weight` from N(0, 2 / fan_out) and clears `bias`.

    He et al., "Delving Deep into Rectifiers" (2015). It is Caffe2's `MSRAFill`, detectron2's `c2_msra_fill` and what
    torchvision does for every convolution of a ResNet.
    """
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    _clear_bias(layer)


def caffe2_xavier(layer: Layer) -> None:
    """Draws `weight` from U(-b, b) with b = sqrt(3 / fan_in) and clears `bias`.

    Caffe2's `XavierFill`, detectron2's `c2_xavier_fill`; the same distribution as `kaiming_uniform_(a=1)`, which
    maskrcnn-benchmark and torchvision write for their pyramids.
    """
    nn.init.kaiming_uniform_(layer.weight, a=1)
    _clear_bias(layer)


def xavier_uniform(layer: Layer) -> None:
    """Draws `weight` from U(-b, b) with b = sqrt(6 / (fan_in + fan_out)) and clears `bias`.

    Glorot and Bengio (2010), mmdetection's pyramid and all of YOLACT. It differs from :func:`caffe2_xavier` wherever
    fan_in is not fan_out, as in every lateral convolution.
    """
    nn.init.xavier_uniform_(layer.weight)
    _clear_bias(layer)


def _clear_bias(layer: Layer) -> None:
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
