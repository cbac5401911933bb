import logging
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from det_coco import (
    Drawn,
    decode_rle,
    detections_of,
    draw,
    fonts,
    ground_truth_of,
    load_image,
    load_split,
    save_picture,
    side_by_side,
    to_results,
)
from det_coco.rle import bitmap_to_runs


def test_masks_and_boxes_are_where_they_belong():
    image = np.full((300, 500, 3), 128, np.uint8)
    mask = np.zeros((1, 300, 500), bool)
    mask[0, 100:200, 100:200] = True
    drawn = Drawn(boxes=np.array([[300.0, 100, 400, 200]]), labels=np.array([0]), masks=mask)
    changed = (np.asarray(draw(image, drawn, ["x"])) != 128).any(axis=2)
    assert changed[100:200, 100:200].all()
    assert changed[100:200, 300].all()
    assert not changed[110:190, 310:390].any()
    assert not changed[210:].any()


def test_translucent():
    image = np.random.default_rng(0).integers(0, 255, (500, 500, 3), dtype=np.uint8)
    masks = np.ones((1, 500, 500), bool)
    drawn = Drawn(boxes=np.zeros((1, 4)), labels=np.array([3]), masks=masks)
    out = np.asarray(draw(image, drawn, list("abcd")))[200:490, 200:490, 0]
    assert np.corrcoef(out.reshape(-1), image[200:490, 200:490, 0].reshape(-1))[0, 1] > 0.99


def test_small_pictures_are_enlarged():
    drawn = Drawn(boxes=np.array([[1.0, 1, 9, 9]]), labels=np.array([0]))
    assert draw(np.zeros((30, 50, 3), np.uint8), drawn, ["x"]).size == (500, 300)
    assert draw(np.zeros((300, 500, 3), np.uint8), drawn, ["x"]).size == (500, 300)


def test_nothing_to_draw():
    image = np.random.default_rng(0).integers(0, 255, (400, 500, 3), dtype=np.uint8)
    nothing = Drawn(boxes=np.zeros((0, 4)), labels=np.zeros(0, int), masks=np.zeros((0, 400, 500), bool))
    np.testing.assert_array_equal(np.asarray(draw(image, nothing, [])), image)
    assert side_by_side(image, nothing, nothing, []).size[0] > 1000


@pytest.mark.parametrize(
    "box", [[0, 0, 500, 400], [-20, -30, 3, 3], [498, 398, 520, 420], [10, 10, 10, 10], [9, 9, 5, 5]]
)
def test_any_box_can_be_drawn(box):
    drawn = Drawn(boxes=np.array([box], float), labels=np.array([0]), scores=np.array([0.5]))
    draw(np.zeros((400, 500, 3), np.uint8), drawn, ["a long class name äöü 猫"])


def test_results_are_read_back(val):
    image_id = int(val.image_ids[0])
    truth = ground_truth_of(val, image_id)
    rles = [coco_mask.encode(np.asfortranarray(m.astype(np.uint8))) for m in truth.masks]
    rows = to_results(val, image_id, truth.boxes, np.linspace(0.9, 0.1, len(rles)), truth.labels, rles)
    drawn = detections_of(val, rows, min_score=0)
    np.testing.assert_array_equal([decode_rle(mask) for mask in drawn.masks], truth.masks)
    np.testing.assert_array_equal(drawn.labels, truth.labels)
    np.testing.assert_allclose(drawn.boxes, truth.boxes, rtol=1e-5)
    assert len(detections_of(val.category_ids, rows).labels) == sum(row["score"] >= 0.5 for row in rows)
    assert detections_of(val, []).boxes.shape == (0, 4)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_photograph_beside_its_truth(coco_mini, tmp_path, suffix):
    index = load_split(coco_mini, "val2017")
    position = int(np.diff(index.image_instances).argmax())
    image_id = int(index.image_ids[position])
    truth = ground_truth_of(index, image_id)
    picture = side_by_side(load_image(index.path(position)), truth, truth, index.class_names)
    saved = Image.open(save_picture(picture, tmp_path / "deep" / f"x.{suffix}"))
    assert saved.size == picture.size
    assert saved.size[0] > 2 * index.widths[position]


def test_run_lengths_are_drawn_as_bitmaps():
    image = np.full((300, 500, 3), 128, np.uint8)
    masks = np.zeros((2, 300, 500), bool)
    masks[0, 100:200, 100:200] = masks[1, 50:250:2, 300:400] = True
    boxes = np.array([[100.0, 100, 200, 200], [300, 50, 400, 250]])
    rles = [coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]
    rles[1] = {"size": [300, 500], "counts": bitmap_to_runs(masks[1]).tolist()}
    drawn = Drawn(boxes=boxes, labels=np.array([0, 1]), masks=masks)
    expected = np.asarray(draw(image, drawn, ["x", "y"]))
    np.testing.assert_array_equal(np.asarray(draw(image, replace(drawn, masks=rles), ["x", "y"])), expected)


@pytest.fixture
def no_fonts(monkeypatch):
    """A system that has no font but Pillow's own."""
    for cached in (fonts.legible, fonts._file_for):
        cached.cache_clear()
    monkeypatch.setattr(fonts, "_files", tuple)
    yield
    for cached in (fonts.legible, fonts._file_for):
        cached.cache_clear()


@pytest.mark.parametrize("name", ["猫", "猫 and dog", "человек", "قطة", "חתול"])
def test_names_that_no_font_shows_are_ids_said_once(no_fonts, caplog, name):
    image = np.zeros((400, 500, 3), np.uint8)
    drawn = Drawn(boxes=np.array([[100.0, 100, 300, 300]]), labels=np.array([1]), scores=np.array([0.5]))
    expected = draw(image, drawn, ["cat", "class 7"])
    if fonts.font_for(name, 12) is not None:
        pytest.skip("Pillow's own font shows it")
    with caplog.at_level(logging.WARNING, "det_coco"):
        for _ in range(2):
            assert draw(image, drawn, {3: "cat", 7: name}) == expected
    assert len(caplog.records) == 1
    assert f"{name!r}; pictures say 'class 7' instead" in caplog.text
    assert draw(image, drawn, ["cat", name]) == draw(image, drawn, ["cat", "class 1"])


@pytest.mark.parametrize("name", ["человек", "猫", "قطة", "ärmel"])
def test_names_in_other_scripts_are_legible(name):
    font = fonts.font_for(name, 30)
    if font is None:
        pytest.skip("no font of this system shows it")
    shapes = {bytes(font.getmask(character)) for character in set(name)}
    assert len(shapes) == len(set(name))  # not one box for all of them
    assert bytes(font.getmask("\uffff")) not in shapes


def test_no_font_of_last_resort(monkeypatch, tmp_path):
    """A font with one shape for every character is no font."""
    monkeypatch.setattr(fonts, "_files", lambda: ("last resort",))
    monkeypatch.setattr(fonts, "_shape", lambda font, character: "□" if font == "box" else (font, character < "\u0100"))
    monkeypatch.setattr(fonts, "_load", lambda file, size: "box" if file else "latin")
    fonts._file_for.cache_clear()
    assert fonts._file_for(frozenset("猫")) is None
    fonts._file_for.cache_clear()
