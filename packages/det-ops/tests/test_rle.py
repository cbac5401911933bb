import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import det_ops

coco = pytest.importorskip("pycocotools.mask")


def peer(mask: Tensor) -> dict:
    rle = coco.encode(np.asfortranarray(mask.numpy().astype(bool).astype(np.uint8)))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


@st.composite
def masks(draw: st.DrawFn) -> Tensor:
    """Noise, or a few rectangles: long runs, runs over column ends, full and empty masks."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    k, h, w = draw(st.integers(0, 3)), draw(st.integers(1, 90)), draw(st.integers(1, 150))
    if draw(st.booleans()):
        return torch.rand(k, h, w, generator=generator) < draw(st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0]))
    result = torch.zeros(k, h, w, dtype=torch.bool)
    for mask in result:
        for _ in range(draw(st.integers(0, 3))):
            y1, y2 = sorted(torch.randint(0, h + 1, (2,), generator=generator).tolist())
            x1, x2 = sorted(torch.randint(0, w + 1, (2,), generator=generator).tolist())
            mask[y1:y2, x1:x2] ^= True
    return result


@pytest.mark.parametrize("kernels_", ["auto", "reference"])
@given(masks=masks())
@settings(max_examples=60, deadline=None)
def test_equals_pycocotools(kernels_: str, masks: Tensor) -> None:
    with det_ops.kernels(kernels_):
        assert det_ops.encode_rle(masks) == [peer(mask) for mask in masks]
        for mask in masks[:1]:
            assert det_ops.encode_rle(mask) == peer(mask)
            assert det_ops.encode_rle(mask.t()) == peer(mask.t())
            assert det_ops.encode_rle(mask.to(torch.uint8) * 7) == peer(mask)


def test_long_runs(kernels: str) -> None:
    mask = torch.zeros(3000, 2000, dtype=torch.bool)
    mask[1, 3] = mask[2999, 1999] = mask[0, 1000] = True
    assert det_ops.encode_rle(mask) == peer(mask)
    assert det_ops.encode_rle(~mask) == peer(~mask)


def test_errors() -> None:
    for wrong in (torch.zeros(3, 3), torch.zeros(3, dtype=torch.bool), torch.zeros(1, 1, 2, 2, dtype=torch.bool)):
        with pytest.raises(ValueError, match="masks must be a bool or uint8 Tensor"):
            det_ops.encode_rle(wrong)
