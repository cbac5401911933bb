"""Networks of timm as bodies: convolutions with and without batch norm, inverted residuals, windows of attention."""

import copy
import sys

import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from det_backbones import (
    FPN,
    ResNetFPN,
    WeightsError,
    fold_norms,
    fold_report,
    load_imagenet_weights,
    timm_backbone,
)

SMALL_SWIN = {"embed_dim": 24, "depths": (1, 2, 1, 1), "num_heads": (1, 2, 4, 8)}
NETWORKS = {
    "convnextv2_atto": {},
    "resnet10t": {},
    "mobilenetv3_small_050": {},
    "swin_tiny_patch4_window7_224": SMALL_SWIN,
}
BATCH_NORMS = {"convnextv2_atto": 0, "resnet10t": 14, "mobilenetv3_small_050": 34, "swin_tiny_patch4_window7_224": 0}


def build(name, **arguments):
    torch.manual_seed(0)
    return timm_backbone(f"timm/{name}", **NETWORKS.get(name, {}), **arguments)


def with_statistics(network):
    """Batch norms that are not the identity."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
            with torch.no_grad():
                module.weight.uniform_(0.5, 1.5)
    return network


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(64, 96), (100, 132)])
def test_features_have_the_channels_and_strides_that_they_declare(name, size):
    body = build(name)
    pyramid = ResNetFPN(body, FPN(body.out_channels, 16)).eval()
    with torch.no_grad():
        features, levels = body(torch.randn(2, 3, *size)), pyramid(torch.randn(2, 3, *size))
    assert body.strides == (4, 8, 16, 32)
    for feature, channels, stride in zip(features, body.out_channels, body.strides, strict=True):
        assert feature.shape[:2] == (2, channels)
        for pixels, cells in zip(size, feature.shape[2:], strict=True):
            assert cells in (pixels // stride, -(-pixels // stride))
    assert [level.shape[1] for level in levels] == [16] * 5


@pytest.mark.parametrize("name", NETWORKS)
def test_folded_it_computes_the_same(name):
    body = with_statistics(build(name)).eval()
    report, folded, x = fold_report(body), fold_norms(copy.deepcopy(body)), torch.randn(1, 3, 96, 128)
    assert len(report.folded) == BATCH_NORMS[name]
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    with torch.no_grad():
        for found, expected in zip(folded(x), body(x), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
    layers = sum(isinstance(module, nn.LayerNorm) for module in body.modules())
    kept = f"; {layers} kept: statistics of its input" if layers else ""
    assert str(report) == f"{BATCH_NORMS[name]} of {BATCH_NORMS[name] + layers} normalisations folded{kept}"


def test_norms_that_follow_no_convolution_alone_stay_and_are_named():
    body = with_statistics(timm_backbone("densenet121", growth_rate=4, block_config=(1, 1, 2, 1))).eval()
    report, folded, x = fold_report(body), fold_norms(copy.deepcopy(body)), torch.randn(1, 3, 64, 96)
    assert report.folded
    assert "follows no convolution alone" in report.kept.values()
    with torch.no_grad():
        torch.testing.assert_close(folded(x), body(x), rtol=1e-4, atol=1e-4)
    assert set(fold_report(folded).kept) == set(report.kept)


def test_batch_statistics_are_not_folded():
    body = build("resnet10t", norm="bn").train()
    report = fold_report(body)
    assert not report.folded
    assert set(report.kept.values()) == {"statistics of the batch, in train()"}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("freeze_at", [0, 1, 2, 4, 5])
def test_frozen_parts_are_those_below_a_feature(name, freeze_at):
    """Of what the last frozen feature depends on nothing is trained; everything else is, and reaches the features."""
    body = build(name, freeze_at=freeze_at, norm="bn").train()
    before = {key: value.clone() for key, value in body.state_dict().items()}
    features = body(torch.randn(2, 3, 64, 96))
    frozen = max(freeze_at - 1, 0)  # features
    assert [feature.requires_grad for feature in features] == [level >= frozen for level in range(4)]
    if freeze_at < 5:
        sum(feature.square().mean() for feature in features if feature.requires_grad).backward()
    trained = {key for key, parameter in body.named_parameters() if parameter.grad is not None}
    assert trained == {key for key, parameter in body.named_parameters() if parameter.requires_grad}
    stem = set(body.layer_groups()[0])
    assert stem
    assert stem & trained == (set() if freeze_at else stem)
    changed = {key for key, value in body.state_dict().items() if not torch.equal(value, before[key])}
    assert {key.rpartition(".")[0] for key in changed} <= {key.rpartition(".")[0] for key in trained}
    assert bool(changed) == (BATCH_NORMS[name] > 0 and freeze_at < 5)


@pytest.mark.parametrize(("norm", "affine"), [("frozen_bn", False), ("frozen_statistics_bn", True)])
def test_batch_norm_is_frozen_in_training_too(norm, affine):
    body = build("mobilenetv3_small_050", norm=norm).train()
    norms = [module for module in body.modules() if isinstance(module, nn.BatchNorm2d)]
    assert not any(module.training for module in norms)
    assert all(module.weight.requires_grad == affine for module in norms)
    assert body.network.conv_stem.weight.requires_grad


@pytest.mark.parametrize("name", NETWORKS)
def test_layer_groups_are_all_parameters_from_the_input_on(name):
    body = build(name, norm="bn")
    names = [parameter for group in body.layer_groups() for parameter in group]
    assert sorted(names) == sorted(parameter for parameter, _ in body.named_parameters())
    x = torch.randn(1, 3, 64, 96)
    finest = body(x)[0].sum()
    used = torch.autograd.grad(finest, list(body.parameters()), allow_unused=True)
    reached = {key for (key, _), gradient in zip(body.named_parameters(), used, strict=True) if gradient is not None}
    numbers = [any(parameter in reached for parameter in group) for group in body.layer_groups()]
    assert numbers == sorted(numbers, reverse=True)
    pyramid = ResNetFPN(body, FPN(body.out_channels, 16))
    assert all(name.startswith("body.network.") for group in pyramid.layer_groups() for name in group)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("form", ["safetensors", "pth", "wrapped"])
def test_weights_from_a_file_of_timm(tmp_path, name, form):
    torch.manual_seed(1)
    whole = with_statistics(timm.create_model(name, **NETWORKS[name]))
    path = tmp_path / "weights"
    if form == "safetensors":
        safetensors.torch.save_file(whole.state_dict(), path)
    elif form == "pth":
        torch.save(whole.state_dict(), path)
    else:
        torch.save({"state_dict": {f"module.{key}": value for key, value in whole.state_dict().items()}}, path)
    body = build(name)
    report = load_imagenet_weights(body, path)
    assert report.format == "timm"
    assert report.missing == ()
    assert report.pixels.order == "rgb"
    assert report.unwrapped == (("module.",) if form == "wrapped" else ())
    flattened = {key.replace(".", "_"): value for key, value in whole.state_dict().items()}
    for key, value in body.network.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(value, flattened[key.replace(".", "_")])
    assert {key.partition(".")[0] for key in report.ignored if "num_batches" not in key} <= {
        "head", "fc", "classifier", "conv_head", "norm",
    }  # fmt: skip


def test_weights_of_another_network_change_nothing(tmp_path):
    body = build("resnet10t")
    before = {key: value.clone() for key, value in body.state_dict().items()}
    torch.save(timm.create_model("resnet14t").state_dict(), tmp_path / "x")
    message = (
        r"another network than timm/resnet10t, .* layer1\.0\.conv1\.weight is .* in the file and .* in the network"
    )
    with pytest.raises(WeightsError, match=message):
        load_imagenet_weights(body, tmp_path / "x")
    content = timm.create_model("resnet10t").state_dict()
    content["layer1.0.conv1.weight"][0, 0, 0, 0] = torch.nan
    torch.save(content, tmp_path / "x")
    with pytest.raises(WeightsError, match=r"not finite, first in layer1\.0\.conv1\.weight"):
        load_imagenet_weights(body, tmp_path / "x")
    assert all(torch.equal(value, before[key]) for key, value in body.state_dict().items())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "vit_small_patch32_224",
            "gives features of strides 32, 32, 32, and a pyramid needs 4, 8, 16, 32, or 16 alone",
        ),
        ("inception_v3", r"gives a feature 192 x 28 x 44 where it declares 192 channels of stride 4, 192 x 32 x 48"),
        ("maxvit_pico_rw_256", "does not take images of 128 x 192 pixels"),
        ("efficientformerv2_s0", "does not take images of 128 x 192 pixels"),
        ("convnextv2_ato", "has no network 'convnextv2_ato'; similar ones are convnextv2_atto"),
        ("hf-hub:someone/network", "has no network"),
    ],
)
def test_networks_without_a_pyramid_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        timm_backbone(f"timm/{name}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norm": "sync_bn"}, "norm of a network of timm must be"),
        ({"freeze_at": 6}, "freeze_at must be"),
        ({"depth": 3}, "timm/resnet10t cannot be built as the body of a detector: .*depth"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        timm_backbone("resnet10t", **arguments)


def test_without_timm_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r"pip install 'det-backbones\[timm\]'"):
        timm_backbone("resnet10t")


class Lying(nn.Module):
    """Declares strides that its features have not."""

    out_channels, strides = (4, 4), (8, 16)

    def __init__(self, *sizes):
        super().__init__()
        self.sizes = sizes

    def forward(self, x):
        return [torch.zeros(1, 4, *size) for size in self.sizes]


def test_a_pyramid_refuses_a_body_of_other_strides():
    x = torch.zeros(1, 3, 64, 96)
    pyramid = ResNetFPN(Lying((8, 12), (4, 6)), FPN((4, 4), 4, max_pool_level=False))
    assert [level.shape[2:] for level in pyramid(x)] == [(8, 12), (4, 6)]
    pyramid.body.sizes = ((16, 24), (8, 12))
    message = r"declares features of strides \(8, 16\), but gives one of 16 x 24 for stride 8 of an image of 64 x 96"
    with pytest.raises(ValueError, match=message):
        pyramid(x)


def test_a_pyramid_refuses_features_that_do_not_halve():
    fpn = FPN((4, 4), 4)
    with pytest.raises(ValueError, match="must halve in size from map to map, got 8 x 12 after 32 x 48"):
        fpn([torch.zeros(1, 4, 32, 48), torch.zeros(1, 4, 8, 12)])
    assert len(fpn([torch.zeros(1, 4, 25, 33), torch.zeros(1, 4, 12, 17)])) == 3
