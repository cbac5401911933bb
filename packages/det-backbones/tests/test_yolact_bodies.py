"""What YOLACT needs of backbones: deformable stages, DarkNet, and a pyramid with P6 and P7."""

import pytest
import torch
from torchvision.ops import deform_conv2d

from det_backbones import (
    FPN,
    DarkNet,
    Deformable,
    DeformConv2d,
    ResNetFPN,
    WeightsError,
    load_imagenet_weights,
    resnet,
)


def deformed(body):
    return [name for name, module in body.named_modules() if isinstance(module, DeformConv2d)]


def bent(**arguments):
    return resnet(50, width=8, freeze_at=0, deformable=Deformable(operator=deform_conv2d, **arguments))


def test_deformable_convolutions_are_at_yolact_plus_s_blocks():
    assert len(deformed(bent())) == 4 + 6 + 3
    names = deformed(
        resnet(101, width=8, deformable=Deformable(operator=deform_conv2d, blocks=(0, 4, 23, 3), interval=3))
    )
    expected = {2: (0, 3), 3: (0, 3, 6, 9, 12, 15, 18, 21), 4: (0,)}
    assert names == [f"layer{stage}.{block}.conv2" for stage, blocks in expected.items() for block in blocks]


def test_a_fresh_deformable_convolution_is_half_a_convolution():
    layer = DeformConv2d(4, 6, 2, deform_conv2d)
    x = torch.randn(2, 4, 9, 8)
    torch.testing.assert_close(layer(x), 0.5 * torch.nn.functional.conv2d(x, layer.weight, stride=2, padding=1))


def test_frozen_statistics_fold_into_deformable_convolutions():
    body = bent().eval()
    with torch.no_grad():
        for tensor in [*body.parameters(), *body.buffers()]:
            tensor.add_(torch.rand(tensor.shape) * 0.05)
    block, x = body.layer3[1], torch.randn(1, 128, 8, 8)
    out = torch.relu(block.bn1(block.conv1(x)))
    out = torch.relu(block.bn2(block.conv2(out)))
    torch.testing.assert_close(block(x), torch.relu(block.bn3(block.conv3(out)) + x), rtol=1e-4, atol=1e-4)


def test_deformable_convolutions_need_bottlenecks_and_sensible_counts():
    with pytest.raises(ValueError, match="depth 50"):
        resnet(18, deformable=Deformable(operator=deform_conv2d))
    with pytest.raises(ValueError, match="interval"):
        Deformable(operator=deform_conv2d, interval=0)
    with pytest.raises(ValueError, match="blocks"):
        Deformable(operator=deform_conv2d, blocks=(1, 2, 3))


def test_plain_weights_load_into_deformable_stages(tmp_path):
    plain, body = resnet(50, width=8), bent()
    torch.save(plain.state_dict() | {"fc.weight": torch.zeros(3, 4)}, tmp_path / "resnet50-19c8e357.pth")
    report = load_imagenet_weights(body, tmp_path / "resnet50-19c8e357.pth")
    assert len(report.missing) == 3 * 13
    assert torch.equal(body.layer4[0].conv2.weight, plain.layer4[0].conv2.weight)
    assert not body.layer4[0].conv2.offset_mask.weight.any()


def their_darknet(body):
    """The names of YOLACT's file."""
    renamed = {}
    for name, value in body.state_dict().items():
        for ours, theirs in ((".reduce", ".conv1"), (".expand", ".conv2"), (".conv.", ".0."), (".bn.", ".1.")):
            name = name.replace(ours, theirs)
        renamed[name.replace("stem.", "_preconv.")] = value
    return renamed


def test_darknet_reads_yolact_s_file(tmp_path):
    torch.manual_seed(0)
    source, body = DarkNet((1, 1, 2, 2, 1), width=4), DarkNet((1, 1, 2, 2, 1), width=4, norm="bn")
    torch.save(their_darknet(source), tmp_path / "darknet53.pth")
    report = load_imagenet_weights(body, tmp_path / "darknet53.pth")
    assert report.format == "darknet"
    assert (report.pixels.scale, report.pixels.std) == (255.0, (1.0,) * 3)
    assert not report.missing
    assert not report.ignored
    x = torch.randn(1, 3, 64, 96)
    for index, (one, two) in enumerate(zip(source(x), body.eval()(x), strict=True)):
        torch.testing.assert_close(one, two)
        assert one.shape == (1, body.out_channels[index], 64 // body.strides[index], 96 // body.strides[index])


def test_darknet_weights_do_not_fit_a_resnet(tmp_path):
    torch.save(their_darknet(DarkNet((1, 1, 1, 1, 1), width=4)), tmp_path / "darknet53.pth")
    with pytest.raises(WeightsError, match="a DarkNet, while this one is ResNet-50"):
        load_imagenet_weights(resnet(50, width=8), tmp_path / "darknet53.pth")


def test_yolact_s_pyramid():
    body = resnet(50, width=8)
    fpn = FPN(body.out_channels[1:], 16, max_pool_level=False, strided_levels=2, upsampling="bilinear", activation=True)
    backbone = ResNetFPN(body, fpn)
    levels = backbone(torch.randn(1, 3, 550, 550))
    assert [level.shape[-1] for level in levels] == [69, 35, 18, 9, 5]
    assert backbone.strides == (8, 16, 32, 64, 128)
    assert all((level >= 0).all() for level in levels[:3])
    assert (levels[3] < 0).any()
    with pytest.raises(ValueError, match="strided_levels"):
        FPN((4,), strided_levels=1)
    with pytest.raises(ValueError, match="upsampling"):
        FPN((4,), upsampling="cubic")
