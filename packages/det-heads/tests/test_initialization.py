import math

import pytest
import torch

from det_heads import BoxHead, BoxHeadConfig, MaskHead, MaskHeadConfig, RPNHead


def spread(tensor):
    return tensor.detach().std().item()


def test_rpn_is_narrow_normal():
    torch.manual_seed(0)
    head = RPNHead(256, 3)
    for layer in (head.conv, head.objectness, head.deltas):
        assert spread(layer.weight) == pytest.approx(0.01, rel=0.1)
        assert (layer.bias == 0).all()


@pytest.mark.parametrize("system", ["detectron2", "maskrcnn_benchmark"])
def test_box_head_of_caffe2_heritage(system):
    torch.manual_seed(0)
    head = BoxHead(256, 80, BoxHeadConfig(), init=system)
    for layer in (head.fc1, head.fc2):
        assert layer.weight.abs().max().item() == pytest.approx(math.sqrt(3 / layer.in_features), rel=0.01)
        assert (layer.bias == 0).all()
    assert spread(head.cls_score.weight) == pytest.approx(0.01, rel=0.05)
    assert spread(head.bbox_pred.weight) == pytest.approx(0.001, rel=0.05)
    assert (head.cls_score.bias == 0).all()
    assert (head.bbox_pred.bias == 0).all()


def test_box_head_of_torchvision_keeps_the_default_of_linear_layers():
    torch.manual_seed(0)
    head = BoxHead(256, 80, BoxHeadConfig(), init="torchvision")
    for layer in (head.fc1, head.fc2, head.cls_score, head.bbox_pred):
        assert layer.weight.abs().max().item() == pytest.approx(1 / math.sqrt(layer.in_features), rel=0.01)
        assert (layer.bias != 0).any()


@pytest.mark.parametrize("system", ["detectron2", "maskrcnn_benchmark", "torchvision"])
def test_mask_head(system):
    torch.manual_seed(0)
    head = MaskHead(256, 80, MaskHeadConfig(), init=system)
    for conv in head.convs:
        assert spread(conv.weight) == pytest.approx(math.sqrt(2 / (256 * 9)), rel=0.05)
        assert (conv.bias == 0).all()
    predictor = 0.001 if system == "detectron2" else math.sqrt(2 / 80)
    assert spread(head.predictor.weight) == pytest.approx(predictor, rel=0.05)
    assert bool((head.predictor.bias != 0).any()) == (system == "torchvision")


@pytest.mark.parametrize("system", ["detectron2", "torchvision"])
def test_convolutions_of_the_box_head(system):
    torch.manual_seed(0)
    head = BoxHead(64, 5, BoxHeadConfig(convs=2, conv_channels=64, norm="bn", layers=1, channels=32), init=system)
    for conv in head.convs:
        assert spread(conv.weight) == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.05)
        assert conv.bias is None
    assert [name for name, _ in head.named_children()] == ["convs", "norms", "fc1", "cls_score", "bbox_pred"]
