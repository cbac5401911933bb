import pytest
import torch
import torchvision

from det_backbones import FPN, FrozenBatchNorm2d, ResNetFPN, SyncBatchNorm2d, resnet, resnext101_32x8d

PEERS = {
    "resnet18": lambda **kw: resnet(18, **kw),
    "resnet34": lambda **kw: resnet(34, **kw),
    "resnet50": lambda **kw: resnet(50, **kw),
    "resnet101": lambda **kw: resnet(101, **kw),
    "resnet152": lambda **kw: resnet(152, **kw),
    "resnext101_32x8d": resnext101_32x8d,
}


def peer_features(peer, x):
    x = peer.maxpool(peer.relu(peer.bn1(peer.conv1(x))))
    features = []
    for layer in (peer.layer1, peer.layer2, peer.layer3, peer.layer4):
        x = layer(x)
        features.append(x)
    return features


def body_state(peer):
    return {name: value for name, value in peer.state_dict().items() if not name.startswith("fc.")}


def assert_features_close(actual, expected):
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= 2e-5 * b.abs().max()


@pytest.mark.parametrize("name", PEERS)
def test_equals_torchvision(name, randomize):
    peer = randomize(torchvision.models.get_model(name)).eval()
    body = PEERS[name](freeze_at=0)
    body.load_state_dict(body_state(peer), strict=True)
    x = torch.randn(1, 3, 64, 72)
    with torch.no_grad():
        expected = peer_features(peer, x)
        assert_features_close(body.train()(x), expected)
    assert tuple(feature.shape[1] for feature in expected) == body.out_channels


@pytest.mark.parametrize("norm", ["frozen_bn", "frozen_statistics_bn", "bn"])
def test_gradients_equal_unfolded_torchvision(norm, randomize):
    # In float64: ReLUs that sit at zero would flip with float32 rounding.
    peer = randomize(torchvision.models.resnet50()).double().eval()
    body = resnet(50, norm=norm, freeze_at=0).double()
    body.load_state_dict(body_state(peer), strict=True)
    body.eval()
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    upstream = [torch.randn_like(f) for f in peer_features(peer, x)]
    for net, features in ((peer, peer_features(peer, x)), (body, body(x))):
        torch.autograd.backward(features, upstream)
        assert all(p.grad is not None for name, p in net.named_parameters() if not name.startswith("fc."))
    gradients = {name: p.grad for name, p in peer.named_parameters()}
    for name, parameter in body.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-8, atol=1e-10)


def test_live_batch_norm_equals_torchvision_in_training(randomize):
    peer = randomize(torchvision.models.resnet18()).double().train()
    body = resnet(18, norm="bn", freeze_at=0).double().train()
    body.load_state_dict(body_state(peer), strict=True)
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    for a, b in zip(body(x), peer_features(peer, x), strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(body.layer4[1].bn2.running_var, peer.layer4[1].bn2.running_var)


@pytest.mark.parametrize("norm", ["frozen_bn", "bn", "gn", "frozen_statistics_bn"])
@pytest.mark.parametrize("freeze_at", range(6))
def test_freeze_at(norm, freeze_at):
    body = resnet(18, norm=norm, width=16, freeze_at=freeze_at).train()
    before = {name: value.clone() for name, value in body.state_dict().items()}
    features = body(torch.randn(2, 3, 64, 64))
    stages = ["conv1|bn1", "layer1", "layer2", "layer3", "layer4"]
    for index, feature in enumerate(features):
        assert feature.requires_grad == (index + 1 >= freeze_at)
    if freeze_at < 5:
        sum(f.sum() for f in features if f.requires_grad).backward()
    for name, parameter in body.named_parameters():
        stage = next(i for i, prefix in enumerate(stages) if name.startswith(tuple(prefix.split("|"))))
        assert parameter.requires_grad == (stage >= freeze_at), name
        assert (parameter.grad is not None) == (stage >= freeze_at), name
    for name, value in body.state_dict().items():
        stage = next(i for i, prefix in enumerate(stages) if name.startswith(tuple(prefix.split("|"))))
        if stage < freeze_at:
            assert torch.equal(value, before[name]), name


def test_frozen_part_saves_nothing_for_backward():
    saved = []
    body = resnet(18, width=16, freeze_at=5)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.shape) or t, lambda t: t):
        body(torch.randn(1, 3, 64, 64))
    assert saved == []


def test_stride_place():
    msra, torchvisions = resnet(50, stride_in_1x1=True), resnet(50)
    assert [msra.layer2[0].conv1.stride, msra.layer2[0].conv2.stride] == [(2, 2), (1, 1)]
    assert [torchvisions.layer2[0].conv1.stride, torchvisions.layer2[0].conv2.stride] == [(1, 1), (2, 2)]
    x = torch.randn(1, 3, 64, 64)
    assert [f.shape for f in msra(x)] == [f.shape for f in torchvisions(x)]


def test_width_scales_every_stage():
    body = resnet(18, norm="gn", width=32, freeze_at=0)
    x = torch.randn(1, 3, 64, 96)
    features = body(x)
    assert [tuple(f.shape) for f in features] == [(1, 32, 16, 24), (1, 64, 8, 12), (1, 128, 4, 6), (1, 256, 2, 3)]
    assert body.out_channels == (32, 64, 128, 256)
    assert body.strides == (4, 8, 16, 32)


def test_zero_init_residual_starts_as_identity():
    body = resnet(50, norm="gn", freeze_at=0, zero_init_residual=True, width=16)
    x = torch.rand(1, 64, 8, 8)
    assert torch.equal(body.layer1[1](x), x)


def test_initialization_is_he_normal():
    weight = resnet(50).layer4[1].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.02)


def test_sync_bn_is_built_outside_frozen_stages():
    body = resnet(18, norm="sync_bn", freeze_at=2)
    kinds = {name: type(module) for name, module in body.named_modules() if "bn" in name}
    assert kinds["bn1"] is kinds["layer1.0.bn1"] is FrozenBatchNorm2d
    assert kinds["layer2.0.bn1"] is kinds["layer4.1.bn2"] is SyncBatchNorm2d
    body.train()(torch.randn(2, 3, 64, 64))


def test_bfloat16_network_and_channels_last():
    net = ResNetFPN(resnet(50, width=16), FPN((64, 128, 256, 512), 32)).to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 64, 96).to(memory_format=torch.channels_last)
    for feature in net(x)[:3]:
        assert feature.is_contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        assert {f.dtype for f in net(x)} == {torch.bfloat16}
    assert {f.dtype for f in net.bfloat16()(x.bfloat16())} == {torch.bfloat16}


def test_compiles_and_exports_in_one_graph():
    net = ResNetFPN(resnet(18, width=16), FPN((16, 32, 64, 128), 16))
    x = torch.randn(1, 3, 64, 64)
    expected = net(x)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")(x)
    exported = torch.export.export(net, (x,)).module()(x)
    for e, c, m in zip(expected, compiled, exported, strict=True):
        torch.testing.assert_close(c, e)
        torch.testing.assert_close(m, e)
    gradients = [
        torch.autograd.grad(sum(f.sum() for f in fs), net.fpn.lateral[1].weight) for fs in (expected, compiled)
    ]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 51}, "depth must be one of 18, 34, 50, 101, 152, got 51"),
        ({"freeze_at": 6}, "freeze_at must be 0 .* got 6"),
        ({"norm": "batch"}, "norm must be one of"),
        ({"width": 0}, "width must be positive"),
        ({"depth": 18, "groups": 32}, "basic block has no groups"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        resnet(**arguments)
