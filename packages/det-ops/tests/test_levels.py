import numpy as np
import pytest
import torch

import det_ops

SYSTEMS = {
    "detectron2_2_5": {},
    "mrb_0_3": {"epsilon": 1e-6, "offset": 1.0},
    "torchvision_k2_5": {"epsilon": 1e-6, "epsilon_inside_log": False},
    "mmdet_0_3": {"epsilon": 1e-6, "min_level": 0, "canonical_level": 0, "canonical_size": 56.0},
}


@pytest.mark.parametrize("system", SYSTEMS)
def test_systems(parity, system: str) -> None:
    recorded = torch.from_numpy(parity[f"levels/{system}"])
    found = det_ops.fpn_levels(torch.from_numpy(parity["levels/boxes"]), **SYSTEMS[system])
    assert found.dtype == torch.int64
    assert torch.equal(found, recorded - (2 if system.endswith("2_5") and recorded.min() >= 2 else 0))


@pytest.mark.parametrize("inside", [True, False])
def test_every_box_gets_a_level(inside: bool) -> None:
    values = [-np.inf, -1e30, -5.0, 0.0, 1e-30, 50.0, 1e30, np.inf, np.nan]
    boxes = torch.cartesian_prod(*[torch.tensor(values)] * 4).view(9, -1, 4)
    levels = det_ops.fpn_levels(boxes, num_levels=3, epsilon_inside_log=inside)
    assert levels.shape == boxes.shape[:-1]
    assert levels.min() == 0
    assert levels.max() == 2
    assert det_ops.fpn_levels(torch.zeros(2, 0, 4)).shape == (2, 0)


def test_levels_double_with_the_side() -> None:
    sides = 224.0 * 2.0 ** torch.arange(-4, 4)
    boxes = torch.stack((torch.zeros(8), torch.zeros(8), sides, sides), 1)
    assert det_ops.fpn_levels(boxes).tolist() == [0, 0, 0, 1, 2, 3, 3, 3]
    assert det_ops.fpn_levels(boxes * 0.999).tolist() == [0, 0, 0, 0, 1, 2, 3, 3]
    assert det_ops.fpn_levels(boxes.half()).tolist() == [0, 0, 0, 1, 2, 3, 3, 3]


def test_compile() -> None:
    boxes = torch.rand(5, 4) * 300
    compiled = torch.compile(det_ops.fpn_levels, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(boxes), det_ops.fpn_levels(boxes))


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"boxes must be a floating Tensor\[\.\.\., 4\].*got int64\[2, 4\]"):
        det_ops.fpn_levels(torch.zeros(2, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match="num_levels must be at least 1"):
        det_ops.fpn_levels(torch.zeros(2, 4), num_levels=0)
