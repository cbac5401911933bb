from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from det_backbones import (
    FPN,
    DarkNet,
    Deformable,
    FrozenBatchNorm2d,
    ResNetFPN,
    convolve_and_normalize,
    fold_norms,
    make_norm,
    resnet,
)
from det_backbones.norm import affine_map, affine_maps
from testing.comparing import assert_same_gradients
from testing.operators import Recorder


def unfolded(x, convolution, norm):
    y = convolution(x)
    mean, var, weight, bias = (
        t.view(1, -1, 1, 1) for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (y - mean) / (var + norm.eps).sqrt() * weight + bias


@settings(deadline=None, max_examples=40)
@given(
    groups=st.sampled_from([1, 2, 4]),
    kernel=st.sampled_from([1, 3]),
    stride=st.sampled_from([1, 2]),
    affine=st.booleans(),
    bias=st.booleans(),
    eps=st.sampled_from([0.0, 1e-5, 1e-3]),
    live=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_folded_equals_plain_with_gradients(groups, kernel, stride, affine, bias, eps, live, seed):
    torch.manual_seed(seed)
    convolution = nn.Conv2d(4, 8, kernel, stride, kernel // 2, groups=groups, bias=bias).double()
    eps = max(eps, 1e-12) if live else eps  # some releases of PyTorch refuse 0 in their own
    norm = (nn.BatchNorm2d(8, eps).eval() if live else FrozenBatchNorm2d(8, eps, affine=affine)).double()
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.1, 2)
    x = torch.randn(2, 4, 6, 5, dtype=torch.float64, requires_grad=True)
    variables = [x, *convolution.parameters(), *norm.parameters()]
    expected = unfolded(x, convolution, norm)
    actual = convolve_and_normalize(x, convolution, norm)
    torch.testing.assert_close(actual, expected)
    assert_same_gradients(actual, expected, variables)
    torch.testing.assert_close(norm(convolution(x)), expected)


def test_training_keeps_frozen_statistics():
    norm = FrozenBatchNorm2d(3, affine=True).train()
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    norm(torch.randn(4, 3, 5, 5) * 7 + 3)
    for name, value in norm.state_dict().items():
        assert torch.equal(value, before[name])


def test_fresh_layer_is_exactly_the_identity():
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(FrozenBatchNorm2d(3)(x), x)
    assert torch.equal(FrozenBatchNorm2d(3, eps=0.0)(x), x)


def test_live_batch_norm_is_not_folded_in_training():
    convolution, norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4).train()
    x = torch.randn(2, 3, 8, 8)
    expected = F.batch_norm(convolution(x), None, None, norm.weight, norm.bias, training=True)
    torch.testing.assert_close(convolve_and_normalize(x, convolution, norm), expected)
    assert norm.num_batches_tracked == 1


def test_state_dict_takes_batch_norm_checkpoints():
    state = nn.BatchNorm2d(5).state_dict()
    FrozenBatchNorm2d(5).load_state_dict(state, strict=True)
    assert "num_batches_tracked" in state
    assert set(FrozenBatchNorm2d(5).state_dict()) == set(state) - {"num_batches_tracked"}


def test_folding_under_autocast_rounds_once():
    convolution, norm = nn.Conv2d(16, 8, 3, bias=False), FrozenBatchNorm2d(8)
    norm.weight.uniform_(0.5, 1.5)
    x = torch.randn(1, 16, 9, 9)
    with torch.autocast("cpu", torch.bfloat16):
        actual = convolve_and_normalize(x, convolution, norm)
    assert actual.dtype == torch.bfloat16
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    weight = (convolution.weight * scale.view(-1, 1, 1, 1)).bfloat16()
    torch.testing.assert_close(actual, F.conv2d(x.bfloat16(), weight, norm.bias.bfloat16()), rtol=0, atol=0)


@pytest.mark.parametrize(("channels", "groups"), [(64, 32), (256, 32), (96, 32), (48, 8), (32, 16), (16, 8), (3, 1)])
def test_group_norm_groups(channels, groups):
    assert make_norm("gn", channels).num_groups == groups


def test_unknown_norm():
    with pytest.raises(ValueError, match=r"norm must be one of frozen_bn, .* got 'ln'"):
        make_norm("ln", 8)


def randomized(network: nn.Module) -> nn.Module:
    """Norms that are not the identity, and do not let activations grow."""
    torch.manual_seed(0)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(getattr(module, "running_var", None), torch.Tensor):
                module.weight.uniform_(0.3, 0.6)
                module.bias.normal_()
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    return network


def bend(x, offset, weight, bias, *, stride, padding, mask):
    return F.conv2d(x, weight, bias, stride, padding)


NETWORKS = {
    "resnet50": lambda: resnet(50, width=8, width_per_group=64),
    "resnet18, live": lambda: resnet(18, width=8, norm="bn"),
    "deformable": lambda: resnet(50, width=8, deformable=Deformable(operator=bend)),
    "darknet": lambda: DarkNet((1, 1, 1, 1, 1), width=4),
    "pyramid": lambda: ResNetFPN(resnet(18, width=8), FPN((8, 16, 32, 64), 16, norm="bn")),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_norms_are_folded_once(name):
    network = randomized(NETWORKS[name]()).double().eval()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    expected = [feature.detach() for feature in network(x)]
    assert fold_norms(network) is network
    assert not any(isinstance(module, FrozenBatchNorm2d | nn.BatchNorm2d) for module in network.modules())
    torch.testing.assert_close(network(x), expected)
    folded = [module for module in network.modules() if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)]
    assert not any(parameter.requires_grad for module in folded for parameter in module.parameters())
    fold_norms(network)  # nothing is left to fold
    torch.testing.assert_close(network(x), expected)


def test_norms_that_are_not_constant_stay():
    network = resnet(18, width=8, norm="bn", freeze_at=0).train()
    fold_norms(network)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in network.modules()) == 20
    network = resnet(18, width=8, norm="gn", freeze_at=0).eval()
    fold_norms(network)
    assert sum(isinstance(module, nn.GroupNorm) for module in network.modules()) == 20


def test_other_networks_are_not_touched():
    network = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), FrozenBatchNorm2d(4))
    fold_norms(network)
    assert isinstance(network[1], FrozenBatchNorm2d)


def test_affine_maps_of_a_network_are_computed_together():
    network = randomized(resnet(50, width=8))
    x = torch.randn(1, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16), Recorder() as recorder:
        network(x)
    count = Counter(call.name for call in recorder.calls)
    assert count["aten::rsqrt"] == 1
    assert count["aten::cat"] == 4
    # Casts of the image and of all shifts; weights are scaled and rounded at once.
    assert count["aten::_to_copy"] == 2
    # Statistics that change are followed, however they are written to.
    before = network(x)[-1]
    network.bn1.running_mean.data.add_(1)
    assert not torch.equal(before, network(x)[-1])


def test_affine_maps_of_several_kinds():
    network = randomized(nn.Sequential(FrozenBatchNorm2d(4), FrozenBatchNorm2d(4, 1e-2), FrozenBatchNorm2d(4).double()))
    x = torch.randn(2, 4, 5, 5)
    for norm in network:
        expected = norm(x)
        with affine_maps(network, x):
            assert torch.equal(norm(x), expected)
        assert torch.equal(norm(x), expected)
        with torch.autocast("cpu", torch.bfloat16), affine_maps(network, x):
            assert torch.equal(norm(x), expected)  # a product and a sum, which autocast leaves alone


@pytest.mark.parametrize("bias", [False, True])
def test_autocast_rounds_folded_weights_once(bias):
    convolution, norm = nn.Conv2d(8, 8, 3, bias=bias), randomized(FrozenBatchNorm2d(8))
    x = torch.randn(1, 8, 6, 6)
    scale, shift = (part.double() for part in affine_map(norm, torch.float32))
    weight = (convolution.weight.double() * scale.view(-1, 1, 1, 1)).float().bfloat16().detach().requires_grad_()
    shift = shift + convolution.bias.double() * scale if bias else shift
    with torch.autocast("cpu", torch.bfloat16):
        found = convolve_and_normalize(x, convolution, norm)
        expected = F.conv2d(x.bfloat16(), weight, shift.float().bfloat16())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-2)
    upstream = torch.randn_like(found)
    (gradient,) = torch.autograd.grad(found, convolution.weight, upstream)
    (plain,) = torch.autograd.grad(expected, weight, upstream)
    assert gradient.dtype == torch.float32
    torch.testing.assert_close(gradient, plain.float() * scale.float().view(-1, 1, 1, 1), rtol=1e-2, atol=1e-2)
