"""Weighted boxes fusion, against numbers of its authors' package."""

import json
from pathlib import Path

import numpy as np
import pytest

from det_models.fusion import Boxes, fused

STORED = json.loads(Path(__file__).with_name("fused_boxes.json").read_text())
LOOKS = [Boxes(*(np.array(look[name]) for name in Boxes._fields)) for look in STORED["looks"]]


@pytest.mark.parametrize("threshold", STORED["fused"])
def test_numbers_are_those_of_ensemble_boxes(threshold):
    found, theirs = fused(LOOKS, float(threshold)), STORED["fused"][threshold]
    assert len(found.scores) == len(theirs["scores"]) < sum(len(look.scores) for look in LOOKS)
    assert found.labels.tolist() == theirs["labels"]
    np.testing.assert_allclose(found.scores, theirs["scores"], atol=2e-6)
    np.testing.assert_allclose(found.boxes, theirs["boxes"], atol=2e-6)


def test_boxes_of_pixels_are_fused_as_fractions_are():
    scale = np.array([640, 480, 640, 480])
    found = fused([look._replace(boxes=look.boxes * scale) for look in LOOKS])
    np.testing.assert_allclose(found.boxes, fused(LOOKS).boxes * scale)


def test_nothing_is_fused_to_nothing():
    none = Boxes(np.zeros((0, 4)), np.zeros(0), np.zeros(0, dtype=np.int64))
    assert [len(part) for part in fused([none, none])] == [0, 0, 0]
    empty = Boxes(np.array([[3.0, 4, 3, 9]]), np.array([0.5]), np.array([0]))
    assert len(fused([none, empty]).scores) == 0


def test_a_box_of_one_look_counts_less():
    box, label = np.array([[0.0, 0, 10, 10]]), np.array([0])
    found = fused([Boxes(box, np.array([0.8]), label), Boxes(box + 20, np.array([0.6]), label)])
    assert found.scores.tolist() == pytest.approx([0.4, 0.3])
