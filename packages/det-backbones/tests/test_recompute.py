"""Stages that are computed again in the backward pass: the same numbers, from fewer that are kept."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from det_backbones import DarkNet, resnet


def small_resnet(norm, recompute):
    return resnet(50, norm=norm, width=16, freeze_at=1, recompute=recompute)


def small_darknet(norm, recompute):
    return DarkNet((1, 1, 2, 2, 1), norm=norm, width=8, recompute=recompute)


def step(build, norm, recompute, half):
    """Features, gradients, buffers and the bytes that are kept, of two passes and steps in training."""
    torch.manual_seed(0)
    body = build(norm, recompute).train()
    x, kept = torch.randn(2, 3, 64, 96), {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    for _ in range(2):
        with saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16, enabled=half):
            features = body(x)
        sum(feature.float().square().mean() for feature in features).backward(retain_graph=True)
    sum(feature.float().mean() for feature in features).backward()  # a second pass through one graph
    gradients = [parameter.grad for parameter in body.parameters() if parameter.requires_grad]
    assert not any(gradient is None for gradient in gradients)
    return [*features, *gradients, *body.buffers()], sum(kept.values())


@pytest.mark.parametrize("half", [False, True], ids=["float32", "autocast"])
@pytest.mark.parametrize("norm", ["frozen_bn", "frozen_statistics_bn", "bn", "sync_bn", "gn"])
@pytest.mark.parametrize("build", [small_resnet, small_darknet])
def test_the_same_numbers_from_fewer_that_are_kept(build, norm, half):
    (whole, kept), (again, fewer) = (step(build, norm, recompute, half) for recompute in (False, True))
    for expected, found in zip(whole, again, strict=True):
        assert torch.equal(expected, found)
    assert fewer < 0.6 * kept


def test_without_gradients_and_compiled_it_is_the_network():
    body = small_resnet("bn", True).eval()
    x = torch.randn(1, 3, 64, 64)
    features = body(x)
    with torch.no_grad():
        for found, expected in zip(body(x), features, strict=True):
            assert torch.equal(found, expected)
    program = torch.export.export(body, (x,))
    for found, expected in zip(program.module()(x), features, strict=True):
        torch.testing.assert_close(found, expected)
