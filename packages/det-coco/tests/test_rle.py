from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco_mask

from det_coco.rle import (
    bitmap_to_runs,
    decode_counts,
    decode_many,
    measure_codes,
    runs_to_bitmap,
    runs_to_edges,
)

bitmaps = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=14), elements=st.integers(0, 1))


@given(bitmaps)
def test_counts_of_pycocotools_are_read(bitmap):
    code = coco_mask.encode(np.asfortranarray(bitmap))
    runs = decode_counts(code["counts"])
    np.testing.assert_array_equal(runs, bitmap_to_runs(bitmap))
    np.testing.assert_array_equal(runs_to_bitmap(runs, *bitmap.shape), bitmap)


def test_long_runs_and_negative_differences():
    bitmap = np.zeros((700, 900), dtype=np.uint8)
    bitmap[3:, 100:800] = 1
    bitmap[200:205, 500] = 0
    code = coco_mask.encode(np.asfortranarray(bitmap))
    np.testing.assert_array_equal(decode_counts(code["counts"].decode()), bitmap_to_runs(bitmap))


@given(st.lists(bitmaps, max_size=5))
def test_many_texts_are_read_together(several):
    texts = [coco_mask.encode(np.asfortranarray(bitmap))["counts"] for bitmap in several]
    runs, offsets = decode_many(["", *texts, b""])
    expected = [[], *[bitmap_to_runs(bitmap).tolist() for bitmap in several], []]
    assert [runs[a:b].tolist() for a, b in pairwise(offsets)] == expected


@pytest.mark.parametrize("text", ["abc\x01", "~~", "`", "é", "o" * 20 + "0"])
def test_broken_counts(text):
    with pytest.raises(ValueError, match=r"The counts (have|end)"):
        decode_counts(text)


@given(bitmaps)
def test_edges_say_where_columns_change(bitmap):
    """Below an odd number of edges is inside: the outline alone gives the bitmap back."""
    height, width = bitmap.shape
    toggles = np.zeros((height + 1, width), dtype=int)
    edges = runs_to_edges(bitmap_to_runs(bitmap), height)
    for x1, y1, x2, y2 in edges.astype(int):
        assert y1 == y2
        assert x1 < x2
        toggles[y1, x1:x2] += 1
    assert toggles.max(initial=0) <= 1
    np.testing.assert_array_equal(toggles.cumsum(axis=0)[:-1] % 2, bitmap)


def test_neighbouring_columns_share_an_edge():
    bitmap = np.zeros((8, 10), dtype=np.uint8)
    bitmap[2:5, 3:9] = 1
    edges = runs_to_edges(bitmap_to_runs(bitmap), 8)
    np.testing.assert_array_equal(edges, [[3, 2, 9, 2], [3, 5, 9, 5]])


def test_full_columns_and_empty_runs():
    # A run over several columns, and a zero run of length 0 inside it.
    edges = runs_to_edges(np.array([0, 3, 0, 9, 4]), 4)
    np.testing.assert_array_equal(edges, [[0, 0, 3, 0], [0, 4, 3, 4]])
    assert runs_to_edges(np.array([12]), 4).shape == (0, 4)


@given(st.lists(st.integers(0, 2**32 - 1), max_size=8), st.sampled_from(((1, 1), (13, 7), (70, 200))))
@settings(deadline=None, max_examples=60)
def test_masks_measured_without_decoding(seeds, size):
    masks = []
    for seed in seeds:
        random = np.random.default_rng(seed)
        masks.append(random.random(size) < random.choice((0.0, 0.001, 0.5, 1.0)))
    counts = [coco_mask.encode(np.asfortranarray(m.astype(np.uint8)))["counts"] for m in masks]
    broken = [b"5", b"5P", b"", b"\x00"]
    codes = np.frombuffer(b"".join(counts + broken), dtype=np.uint8)
    offsets = np.concatenate(([0], np.cumsum([len(c) for c in counts + broken])))
    with_broken = measure_codes(codes, offsets)
    whole = measure_codes(codes[: offsets[len(counts)]], offsets[: len(counts) + 1])
    assert [v.tolist() for v in whole] == [[size[0] * size[1]] * len(masks), [int(m.sum()) for m in masks]]
    assert with_broken[0].tolist() == [*whole[0].tolist(), 5, -1, 0, -1]
