"""Test-time augmentation against detectron2's `GeneralizedRCNNWithTTA` (02b5c4e2), on the same weights.

It looks at one view at a time there too (`batch_size=1`): in a batch it pads smaller views to the size of larger ones,
which changes what is found at their borders.
"""

import json

import numpy as np
import pytest

from det_coco.rle import decode_rle
from det_models import Views, load
from testing.photographs import photographs
from tests.parity import systems
from tests.parity.reference import FOLDER

CASES = {"mask_rcnn": systems.DETECTRON2, "cascade": systems.DETECTRON2_CASCADE}
VIEWS = Views(sizes=(200, 304), longest=4000)
# Beyond this a detection is another one: pixels, and score.
PLACE, SCORE = 0.01, 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_boxes_and_masks_are_detectron2s(name):
    stored = np.load(FOLDER / "detectron2_tta.npz")
    boxes, scores, labels = (stored[f"{name}/{what}"] for what in ("boxes", "scores", "labels"))
    with CASES[name].weights() as path:
        detector = load(path, device="cpu")
    found = detector.predict(photographs("coco_mini") / "val2017/000000000133.jpg", tta=VIEWS)
    assert len(found) == len(scores) == 100
    same = (
        (np.abs(found.boxes[None] - boxes[:, None]).max(axis=2) <= PLACE)  # [theirs, ours]
        & (np.abs(found.scores[None] - scores[:, None]) <= SCORE)
        & (found.labels[None] == labels[:, None])
    )
    assert same.any(axis=1).all()
    counts = json.loads(bytes(stored[f"{name}/masks"]))
    for row, ours in enumerate(same.argmax(axis=1)):
        theirs = decode_rle({"size": list(found.size), "counts": counts[row]})
        assert (theirs != decode_rle(found.rle[ours])).sum() <= 2 + 0.002 * theirs.sum()
