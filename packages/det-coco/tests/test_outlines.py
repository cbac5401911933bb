import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from det_coco._coco_api import coco_mask
from det_coco.outlines import join_outlines, trace_outlines, trace_parts


def rasterised(points: np.ndarray, height: int, width: int) -> np.ndarray:
    return coco_mask.decode(coco_mask.frPyObjects([points.ravel().tolist()], height, width))[..., 0]


@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 1)))
def test_the_joined_outlines_of_a_mask_rasterise_to_the_same_mask(bitmap):
    outlines = trace_outlines(bitmap)
    assert bool(outlines) == bitmap.any()
    if outlines:
        assert np.array_equal(rasterised(join_outlines(outlines), *bitmap.shape), bitmap)


@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 1)))
def test_each_part_of_a_mask_has_an_outline_and_together_they_are_the_mask(bitmap):
    parts = [rasterised(part, *bitmap.shape) for part in trace_parts(bitmap)]
    assert np.array_equal(np.sum(parts, axis=0) if parts else np.zeros_like(bitmap), bitmap)


def test_a_part_within_the_hole_of_another_is_a_part_of_its_own():
    bitmap = np.ones((9, 9), dtype=np.uint8)
    bitmap[2:7, 2:7] = 0
    bitmap[4, 4] = 1
    ring, dot = trace_parts(bitmap)
    assert sorted(map(tuple, dot.tolist())) == [(4, 4), (4, 5), (5, 4), (5, 5)]
    assert rasterised(ring, 9, 9).sum() == 81 - 25


def test_a_ring_has_an_outline_outside_and_one_inside():
    ring = np.ones((5, 6), dtype=bool)
    ring[2, 2:4] = False
    outlines = sorted(trace_outlines(ring), key=len)
    assert [sorted(map(tuple, points.tolist())) for points in outlines] == [
        [(0, 0), (0, 5), (6, 0), (6, 5)],
        [(2, 2), (2, 3), (4, 2), (4, 3)],
    ]


@pytest.mark.parametrize("seed", range(3))
def test_polygons_that_do_not_overlap_are_joined_without_changing_their_mask(seed):
    random = np.random.default_rng(seed)
    parts = [random.uniform(0, 9, (5, 2)) + 10 * np.array(place) for place in ((0, 0), (2, 0), (1, 2))]
    codes = coco_mask.frPyObjects([part.ravel().tolist() for part in parts], 32, 32)
    assert np.array_equal(rasterised(join_outlines(parts), 32, 32), coco_mask.decode(coco_mask.merge(codes)))
