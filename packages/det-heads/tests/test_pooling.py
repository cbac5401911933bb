import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign

from det_heads import PoolConfig, pool_boxes


def test_equals_torchvision_and_skips_padding():
    torch.manual_seed(0)
    features = {str(i): torch.randn(2, 8, 256 >> i, 320 >> i) for i in range(4)}
    corner = torch.rand(2, 20, 2) * 500
    boxes = torch.cat([corner, corner + torch.rand(2, 20, 2) ** 3 * 700 + 4], -1)
    theirs = MultiScaleRoIAlign(list("0123"), 7, 2)(features, list(boxes), [(1024, 1280)] * 2)
    valid = torch.rand(40) > 0.3
    ours = pool_boxes(
        list(features.values()),
        (4, 8, 16, 32, 64),
        boxes.flatten(0, 1),
        torch.arange(2).repeat_interleave(20),
        valid,
        PoolConfig(sampling_ratio=2, aligned=False, level_epsilon=1e-6, level_epsilon_inside_log=False),
    )
    torch.testing.assert_close(ours[valid], theirs[valid], rtol=1e-4, atol=1e-5)
    assert (ours[~valid] == 0).all()


def test_too_few_levels_are_told():
    with pytest.raises(ValueError, match="at least 4 levels"):
        pool_boxes([torch.zeros(1, 1, 4, 4)], (4,), torch.zeros(1, 4), torch.zeros(1), torch.ones(1), PoolConfig())
