"""The pyramid of plain transformers against detectron2's, with weights that are a function of detectron2's names."""

import re

import pytest
import torch

from det_backbones import SimplePyramid
from tests.parity.fill import fill

_SCALED = {"0": 4, "1": 1, "2": 0, "3": 1}
"""How many layers of detectron2's stage come before its two convolutions."""

# detectron2's SimpleFeaturePyramid(net, "f", 8, (4.0, 2.0, 1.0, 0.5), LastLevelMaxPool(), "LN") of a feature of 16
# channels [2, 16, 4, 6]: six values of each level, evenly spread over its memory, and the sum of the magnitudes.
DETECTRON2 = [
    ([0.075975, 0.490903, 0.474503, 0.290053, 0.97994, -0.18477], 5363.811),
    ([1.618495, 0.594727, 0.053736, -2.27331, 1.282043, 0.237187], 1336.661),
    ([0.276374, -0.550271, 0.644258, -0.684969, 0.906734, -0.497575], 323.8074),
    ([-0.831379, 0.742044, -0.482021, 0.256586, -1.582498, 0.408525], 69.7003),
    ([-0.831379, -0.022741, -1.830693, -0.436488, -0.023788, -0.178674], 22.8662),
]


def name_in_detectron2(name: str) -> str:
    part, level, rest = name.split(".", 2)
    stage = f"simfp_{int(level) + 2}"
    if part == "scale":
        return f"{stage}.{rest if level == '0' else '0.' + rest}"
    index = _SCALED[level] + part.startswith("output")
    return f"{stage}.{index}.{'norm.' if part.endswith('norm') else ''}{rest}"


def test_levels_are_detectron2s():
    pyramid = SimplePyramid(16, 8)
    state = {
        name: torch.from_numpy(fill(name_in_detectron2(name), tuple(value.shape)))
        for name, value in pyramid.state_dict().items()
    }
    pyramid.load_state_dict(state)
    levels = pyramid([torch.from_numpy(fill("feature.weight", (2, 16, 4, 6)))])
    assert [tuple(level.shape) for level in levels] == [(2, 8, 16 // 2**n, 24 // 2**n) for n in range(4)] + [
        (2, 8, 1, 2)
    ]
    for level, (values, total) in zip(levels, DETECTRON2, strict=True):
        flat = level.reshape(-1)
        assert flat[:: flat.numel() // 6][:6].tolist() == pytest.approx(values, abs=2e-5)
        assert flat.abs().sum().item() == pytest.approx(total, rel=1e-5)


def test_it_wants_one_feature_of_one_stride():
    pyramid = SimplePyramid(8, 4)
    assert pyramid.level_strides((16,)) == (4, 8, 16, 32, 64)
    with pytest.raises(ValueError, match=re.escape("features must be the one map of a plain transformer, got 2")):
        pyramid([torch.zeros(1, 8, 4, 4)] * 2)
