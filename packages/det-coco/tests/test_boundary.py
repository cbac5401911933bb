import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from det_coco import Protocol, evaluate
from det_coco._boundary import boundary_ious, mask_boundary
from det_coco._coco_api import coco_mask
from testing.evaluation_cases import make_case, open_case


def encode(mask: np.ndarray) -> dict:
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


def near_the_outline(mask: np.ndarray, distance: int) -> np.ndarray:
    """Pixels of a mask that see a pixel outside it, or the end of the picture, within a square around them."""
    found = np.zeros_like(mask)
    for y, x in np.argwhere(mask):
        for v in range(y - distance, y + distance + 1):
            for u in range(x - distance, x + distance + 1):
                inside = 0 <= v < mask.shape[0] and 0 <= u < mask.shape[1]
                found[y, x] |= not (inside and mask[v, u])
    return found


@given(st.integers(0, 2**32 - 1), st.sampled_from(((9, 12), (30, 41), (70, 80))))
@settings(deadline=None, max_examples=30)
def test_boundaries_by_their_definition(seed, size):
    random = np.random.default_rng(seed)
    mask = np.zeros(size, dtype=bool)
    for _ in range(random.integers(0, 4)):
        y, x = random.integers(0, size[0]), random.integers(0, size[1])
        mask[y : y + random.integers(1, 15), x : x + random.integers(1, 20)] ^= True
    expected = near_the_outline(mask, max(1, round(0.02 * float(np.hypot(*size)))))
    assert np.array_equal(coco_mask.decode(mask_boundary(encode(mask))), expected)


def test_crowds_keep_the_overlap_of_masks():
    mask, moved = np.zeros((2, 60, 80), dtype=bool)
    mask[10:40, 10:60] = True
    moved[13:43, 10:60] = True
    truth = [{"segmentation": encode(mask), "iscrowd": crowd} for crowd in (0, 1)]
    found = [{"segmentation": encode(moved)}]
    ious = coco_mask.iou([encode(moved)], [encode(mask)] * 2, [0, 1])
    edges = [near_the_outline(m, 2) for m in (mask, moved)]
    boundary = (edges[0] & edges[1]).sum() / (edges[0] | edges[1]).sum()
    assert boundary < 0.5 < ious[0, 0]
    assert boundary_ious(ious, found, truth).tolist() == [[boundary, ious[0, 1]]]


@pytest.mark.parametrize("agnostic", [False, True])
def test_evaluation_by_boundaries(tmp_path, agnostic):
    content, rows = make_case(5, images=6, classes=3, objects=30, detections=60)
    index = open_case(content, tmp_path)
    metrics = evaluate(index, rows, ("segm", "boundary"), protocol=Protocol(class_agnostic=agnostic))
    assert 0 < metrics["boundary"]["AP"] < metrics["segm"]["AP"]
    assert metrics["boundary"].keys() == metrics["segm"].keys()
    perfect = [
        {**{k: a[k] for k in ("image_id", "category_id", "bbox", "segmentation")}, "score": 0.5}
        for a in content["annotations"]
    ]
    assert evaluate(index, perfect, ["boundary"])["boundary"]["AP"] == pytest.approx(1, abs=0.02)
