import copy

import pytest
import torch
from torch import nn

from det_heads.norm import RowBatchNorm2d, apply_norm, make_row_norm


def rows(count=6):
    return torch.randn(count, 4, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("used", [[1, 1, 1, 1, 1, 1], [1, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 0]])
def test_padding_rows_do_not_count(used):
    """Results, gradients and running statistics are those of PyTorch's layer on the used rows alone."""
    used = torch.tensor(used, dtype=torch.bool)
    ours = RowBatchNorm2d(4).float()
    nn.init.uniform_(ours.weight), nn.init.uniform_(ours.bias)
    peer = nn.BatchNorm2d(4)
    peer.load_state_dict(copy.deepcopy(ours.state_dict()))
    x = rows().float().requires_grad_()
    y = x.detach()[used].requires_grad_()
    found, expected = ours(x, used)[used], peer(y)
    torch.testing.assert_close(found, expected)
    found.sin().sum().backward()
    expected.sin().sum().backward()
    torch.testing.assert_close(x.grad[used], y.grad, rtol=1e-4, atol=1e-5)
    assert (x.grad[~used] == 0).all()
    torch.testing.assert_close(ours.weight.grad, peer.weight.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(dict(ours.named_buffers()), dict(peer.named_buffers()))


def test_no_used_row_changes_nothing():
    norm = RowBatchNorm2d(4)
    before = copy.deepcopy(norm.state_dict())
    assert norm(rows().float(), torch.zeros(6, dtype=torch.bool)).isfinite().all()
    torch.testing.assert_close(dict(norm.state_dict()), dict(before), rtol=0, atol=0)


def test_group_norm_looks_at_each_row_alone():
    norm = make_row_norm("gn", 4).double()
    x = rows()
    torch.testing.assert_close(apply_norm(norm, x, None)[2:3], apply_norm(norm, x[2:3], None))
    with pytest.raises(ValueError, match="norm must be bn, gn or ln, got 'in'"):
        make_row_norm("in", 4)


def test_layer_normalisation_looks_at_each_place_alone():
    norm = make_row_norm("ln", 6)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.normal_()
    rows = torch.randn(3, 6, 2, 4)
    place = rows[1, :, 0, 3]
    expected = (place - place.mean()) / (place.var(correction=0) + 1e-6).sqrt() * norm.weight + norm.bias
    torch.testing.assert_close(apply_norm(norm, rows, None)[1, :, 0, 3], expected)
