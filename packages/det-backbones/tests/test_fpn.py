from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
import torchvision

from det_backbones import FPN, ResNetFPN, resnet


@pytest.mark.parametrize("sizes", [[(32, 48), (16, 24), (8, 12), (4, 6)], [(25, 31), (13, 16), (7, 8), (4, 4)]])
def test_equals_torchvision(sizes):
    channels = (8, 16, 32, 64)
    peer = torchvision.ops.FeaturePyramidNetwork(
        channels, 24, extra_blocks=torchvision.ops.feature_pyramid_network.LastLevelMaxPool()
    )
    fpn = FPN(channels, 24)
    for level in range(4):
        fpn.lateral[level].load_state_dict(peer.inner_blocks[level][0].state_dict())
        fpn.output[level].load_state_dict(peer.layer_blocks[level][0].state_dict())
    features = [torch.randn(2, c, *size) for c, size in zip(channels, sizes, strict=True)]
    expected = peer(OrderedDict((str(i), f) for i, f in enumerate(features))).values()
    actual = fpn(features)
    assert len(actual) == 5
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_whole_sizes_double_as_detectron2_does():
    fpn = FPN((4, 8), 6)
    fine, coarse = torch.randn(1, 4, 8, 12), torch.randn(1, 8, 4, 6)
    merged = fpn.lateral[0](fine) + F.interpolate(fpn.lateral[1](coarse), scale_factor=2, mode="nearest")
    torch.testing.assert_close(fpn([fine, coarse])[0], fpn.output[0](merged), rtol=0, atol=0)


def test_parameter_names():
    names = set(FPN((4, 8, 16, 32), 8).state_dict())
    assert names == {
        f"{part}.{i}.{kind}" for part in ("lateral", "output") for i in range(4) for kind in ("weight", "bias")
    }


def test_norm_replaces_bias():
    fpn = FPN((4, 8), 64, norm="gn")
    assert fpn.lateral[0].bias is None
    assert set(fpn.state_dict()) >= {"lateral_norm.0.weight", "output_norm.1.bias"}
    features = [torch.randn(1, 4, 8, 8), torch.randn(1, 8, 4, 4)]
    expected = fpn.output_norm[1](fpn.output[1](fpn.lateral_norm[1](fpn.lateral[1](features[1]))))
    torch.testing.assert_close(fpn(features)[1], expected)


@pytest.mark.parametrize(
    ("initialization", "bound"), [("caffe2_xavier", (3 / 64) ** 0.5), ("xavier", (6 / 320) ** 0.5)]
)
def test_initialization(initialization, bound):
    fpn = FPN((64,), 256, initialization=initialization)
    assert fpn.lateral[0].weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert fpn.lateral[0].weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    assert not fpn.lateral[0].bias.any()


def test_resnet_fpn_levels():
    body = resnet(18, width=16)
    net = ResNetFPN(body, FPN(body.out_channels, 32))
    outputs = net(torch.randn(2, 3, 64, 128))
    assert net.strides == (4, 8, 16, 32, 64)
    assert net.out_channels == 32
    assert [tuple(o.shape) for o in outputs] == [(2, 32, 64 // s, 128 // s) for s in net.strides]
    assert torch.equal(outputs[4], outputs[3][:, :, ::2, ::2])


def test_pyramid_on_the_last_stages_only():
    body = resnet(18, width=16)
    net = ResNetFPN(body, FPN(body.out_channels[1:], 32, max_pool_level=False))
    assert net.strides == (8, 16, 32)
    assert len(net(torch.randn(1, 3, 64, 64))) == 3


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"in_channels must be the last channels of the body, \(16, 32, 64, 128\)"):
        ResNetFPN(resnet(18, width=16), FPN((256, 512, 1024, 2048)))
    with pytest.raises(ValueError, match="features must be 2 maps, fine to coarse, got 1"):
        FPN((4, 8))([torch.randn(1, 4, 8, 8)])
    with pytest.raises(ValueError, match="initialization must be one of"):
        FPN((4, 8), initialization="he")
    with pytest.raises(ValueError, match="at least one feature map"):
        FPN(())
