import re

import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign

from det_heads import PoolConfig, RoIPool


def test_equals_torchvision_and_skips_padding():
    torch.manual_seed(0)
    features = {str(i): torch.randn(2, 8, 256 >> i, 320 >> i) for i in range(4)}
    corner = torch.rand(2, 20, 2) * 500
    boxes = torch.cat([corner, corner + torch.rand(2, 20, 2) ** 3 * 700 + 4], -1)
    theirs = MultiScaleRoIAlign(list("0123"), 7, 2)(features, list(boxes), [(1024, 1280)] * 2)
    valid = torch.rand(40) > 0.3
    config = PoolConfig(sampling_ratio=2, aligned=False, level_epsilon=1e-6, level_epsilon_inside_log=False)
    pool = RoIPool(config, (4, 8, 16, 32, 64))
    ours = pool(list(features.values()), boxes.flatten(0, 1), torch.arange(2).repeat_interleave(20), valid)
    torch.testing.assert_close(ours[valid], theirs[valid], rtol=1e-4, atol=1e-5)
    assert (ours[~valid] == 0).all()


def test_too_few_levels_are_told():
    with pytest.raises(ValueError, match="at least 4 levels"):
        RoIPool(PoolConfig(), (4, 8, 16, 32))(
            [torch.zeros(1, 1, 4, 4)], torch.zeros(1, 4), torch.zeros(1), torch.ones(1)
        )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": 0}, "size must be at least 1, got 0"),
        ({"size": 10**9}, "size times sampling_ratio must be at most 128, got 1000000000"),
        ({"size": 14, "sampling_ratio": 10}, "size times sampling_ratio must be at most 128, got 140"),
        ({"sampling_ratio": -1}, "sampling_ratio must be 0"),
        ({"levels": 0}, "levels must be at least 1, got 0"),
    ],
)
def test_sizes_that_would_take_all_time_or_memory_are_refused(fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        PoolConfig(**fields)


def test_more_levels_than_the_pyramid_has():
    with pytest.raises(ValueError, match="levels must be at most 2, got 4"):
        RoIPool(PoolConfig(), (4, 8))
