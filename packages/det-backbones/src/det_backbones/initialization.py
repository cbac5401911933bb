"""Initial weights of convolutions, as the reference systems draw them."""

from torch import nn


def kaiming_normal(convolution: nn.Conv2d) -> None:
    """Draws `weight` from N(0, 2 / fan_out) and clears `bias`, in place.

    He et al., "Delving Deep into Rectifiers" (2015). It is Caffe2's `MSRAFill`, detectron2's `c2_msra_fill` and what
    torchvision does for every convolution of a ResNet.
    """
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)


def caffe2_xavier(convolution: nn.Conv2d) -> None:
    """Draws `weight` from U(-b, b) with b = sqrt(3 / fan_in) and clears `bias`, in place.

    Caffe2's `XavierFill`, detectron2's `c2_xavier_fill`; the same distribution as `kaiming_uniform_(a=1)`, which
    maskrcnn-benchmark and torchvision write for their pyramids.
    """
    nn.init.kaiming_uniform_(convolution.weight, a=1)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)


def xavier_uniform(convolution: nn.Conv2d) -> None:
    """Draws `weight` from U(-b, b) with b = sqrt(6 / (fan_in + fan_out)) and clears `bias`, in place.

    Glorot and Bengio (2010), and mmdetection's pyramid. It differs from :func:`caffe2_xavier` wherever fan_in is not
    fan_out, as in every lateral convolution.
    """
    nn.init.xavier_uniform_(convolution.weight)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
