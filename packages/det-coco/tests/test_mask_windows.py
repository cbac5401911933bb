import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco_mask

from det_coco.mask_windows import in_picture, mirrored, union

bitmaps = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=14), elements=st.integers(0, 1))
margins = st.tuples(*[st.integers(0, 5)] * 4)


def encode(bitmap: np.ndarray) -> dict:
    code = coco_mask.encode(np.asfortranarray(bitmap))
    return {"size": list(bitmap.shape), "counts": code["counts"].decode()}


@given(bitmaps, margins)
def test_a_window_is_where_it_was_cut_out(bitmap, margins):
    left, right, above, below = margins
    whole = np.pad(bitmap, ((above, below), (left, right)))
    assert in_picture(encode(bitmap), left, above, whole.shape) == encode(whole)


def test_a_picture_that_would_not_fit_into_memory():
    """A gigapixel by the run lengths of a window of 40 x 30 pixels."""
    moved = in_picture(encode(np.ones((40, 30), dtype=np.uint8)), 39_970, 29_960, (30_000, 40_000))
    assert moved["size"] == [30_000, 40_000]
    assert coco_mask.area(moved) == 1200
    assert coco_mask.toBbox(moved).tolist() == [39_970, 29_960, 30, 40]


@given(st.lists(arrays(np.uint8, (7, 9), elements=st.integers(0, 1)), min_size=1, max_size=4))
def test_a_union_is_what_any_of_them_covers(several):
    assert union([encode(bitmap) for bitmap in several]) == encode(np.bitwise_or.reduce(several))


@given(bitmaps)
def test_a_mirrored_mask(bitmap):
    assert mirrored(encode(bitmap)) == encode(bitmap[:, ::-1])
