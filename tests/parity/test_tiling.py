"""Tiles and what is made of their detections, against sahi 0.12.8."""

from pathlib import Path

import numpy as np
import pytest

from det_models import Detections, Tiling
from det_models.tiling import put_together

FILE = np.load(Path(__file__).with_name("sahi.npz"))
GRIDS = [name for name in FILE.files if name.startswith("grid/")]
SETTINGS = [name for name in FILE.files if name.startswith(("nms/", "join/"))]


@pytest.mark.parametrize("grid", GRIDS)
def test_the_tiles_are_sahis(grid):
    _, *numbers, overlap = grid.split("/")
    height, width, tall, wide = map(int, numbers)
    tiling = Tiling(size=(tall, wide), overlap=float(overlap), whole=False)
    corners = [(w.x, w.y, w.x + w.width, w.y + w.height) for w in tiling.windows(height, width)]
    np.testing.assert_array_equal(corners, FILE[grid])


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_boxes_are_sahis(setting):
    merge, match, threshold = setting.split("/")
    labels = FILE["labels"]
    found = Detections(
        boxes=FILE["boxes"],
        scores=FILE["scores"],
        labels=labels,
        categories={0: "a", 1: "b", 2: "c"},
        category_ids=labels,
        size=(1000, 1000),
    )
    order = np.argsort(-found.scores)
    tiling = Tiling(size=100, merge=merge, match=match, threshold=float(threshold))
    kept = put_together([found[order[::2]], found[order[1::2]]], tiling)
    expected = FILE[setting]  # [n, 6] box, score, class
    np.testing.assert_allclose(kept.boxes, expected[:, :4], rtol=1e-6)
    np.testing.assert_array_equal(kept.scores, expected[:, 4])
    np.testing.assert_array_equal(kept.labels, expected[:, 5])
