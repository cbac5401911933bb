import tempfile
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from det_coco import (
    Detections,
    Protocol,
    confidence_intervals,
    difference_intervals,
    evaluate,
    match_detections,
)
from det_coco.intervals import average_precision, mean_of
from testing.evaluation_cases import cases, make_case, open_case, pycocotools


def repeated(content, rows, times):
    """The case with each image as often as `times` says, each copy an image of its own."""
    images, annotations, results = [], [], []
    for image, count in zip(sorted(content["images"], key=lambda image: image["id"]), times, strict=True):
        for _ in range(count):
            new = len(images) + 1
            images.append({**image, "id": new})
            annotations += [{**a, "image_id": new} for a in content["annotations"] if a["image_id"] == image["id"]]
            results += [{**row, "image_id": new} for row in rows if row["image_id"] == image["id"]]
    annotations = [{**a, "id": n + 1} for n, a in enumerate(annotations)]
    return {**content, "images": images, "annotations": annotations}, results


@given(cases(), st.data())
@settings(deadline=None, max_examples=60)
def test_images_that_count_often_are_images_there_often(case, data):
    content, rows = case
    # Copies of an image stay together only where no other image has the same score.
    rows = [{**row, "score": 1 / (n + 2)} for n, row in enumerate(rows)]
    times = data.draw(st.lists(st.integers(0, 3), min_size=len(content["images"]), max_size=len(content["images"])))
    with tempfile.TemporaryDirectory() as folder:
        index = open_case(content, Path(folder))
    for iou_type in ("bbox", "segm"):
        matches = match_detections(index, Detections.from_rows(index, rows), iou_type)
        names = dict(enumerate(index.class_names))
        ours = mean_of(average_precision(matches, np.array(times, dtype=np.int32)[:, None], names))[0]
        theirs = 0.0
        if any(times):
            _, stats = pycocotools(*repeated(content, rows, times), iou_type)
            theirs = stats[0]
        assert np.nan_to_num(ours, nan=-1) == pytest.approx(theirs if any(times) else -1, abs=1e-12)


@pytest.fixture
def case(tmp_path):
    content, rows = make_case(11, images=40, classes=3, objects=120, detections=300, crowded=0.1)
    index = open_case(content, tmp_path)
    return index, Detections.from_rows(index, rows)


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_values_are_those_of_the_metrics(case, iou_type):
    index, detections = case
    for protocol in (Protocol(), Protocol(class_agnostic=True), Protocol(classes=(index.class_names[1],))):
        intervals = confidence_intervals(index, detections, iou_type, protocol=protocol)
        metrics = evaluate(index, detections, [iou_type], protocol=protocol)[iou_type]
        assert {"AP", "AP50", "AP75"} <= intervals.keys() <= metrics.keys()
        for name, interval in intervals.items():
            assert interval.value == pytest.approx(metrics[name], abs=1e-12)
            assert 0 <= interval.low < interval.value < interval.high <= 1
            # Forty images say little.
            assert 0.02 < interval.high - interval.low < 0.5


def test_the_spread_is_that_of_all_drawings(tmp_path):
    """Of three images there are 27 drawings, all of which can be looked at."""
    content, rows = make_case(2, images=3, classes=2, objects=12, detections=30)
    rows = [{**row, "score": 1 / (n + 2)} for n, row in enumerate(rows)]
    index = open_case(content, tmp_path)
    values = []
    for drawing in product(range(3), repeat=3):
        _, stats = pycocotools(*repeated(content, rows, np.bincount(drawing, minlength=3).tolist()), "bbox")
        values.append(stats[0])
    interval = confidence_intervals(index, Detections.from_rows(index, rows), samples=4000, level=0.6827)["AP"]
    assert interval.high - interval.value == pytest.approx(np.std(values), rel=0.05)


def test_differences(case):
    index, detections = case
    same = difference_intervals(index, detections, detections)
    assert all(interval == (0, 0, 0) for interval in same.values())
    chance = np.random.default_rng(0).random(len(detections))
    few = difference_intervals(index, detections, detections[chance < 0.1])["AP"]
    assert few.low < few.value < few.high < 0
    most = difference_intervals(index, detections, detections[chance < 0.9])["AP"]
    assert most.low < 0 < most.high
    alone = [confidence_intervals(index, d)["AP"] for d in (detections, detections[chance < 0.9])]
    assert most.value == pytest.approx(alone[1].value - alone[0].value)
    # Both see the same images, so the difference is surer than if they did not.
    assert most.high - most.low < 0.7 * (alone[0].high - alone[0].low)


def test_matches_name_detections_and_objects(case):
    index, detections = case
    matches = match_detections(index, detections)
    assert matches.objects.shape == (10, len(matches.detections))
    right = matches.objects[0] >= 0
    assert right.any()
    rows = matches.objects[0][right]
    assert np.array_equal(index.labels[rows], matches.labels[right])
    assert np.array_equal(np.array(index.category_ids)[matches.labels], detections.category_ids[matches.detections])
    assert np.array_equal(detections.scores[matches.detections], matches.scores)
    assert len(matches.truth) == (~index.crowd).sum()
    assert matches.ignored[0][right].sum() == index.crowd[rows].sum()


def test_a_class_at_a_time(case, monkeypatch):
    index, detections = case
    whole = match_detections(index, detections, "segm")
    monkeypatch.setattr("det_coco.matches._DETECTIONS_AT_A_TIME", 1)
    parts = match_detections(index, detections, "segm")
    for name in ("detections", "objects", "ignored", "images"):
        assert np.array_equal(getattr(whole, name), getattr(parts, name))


def test_what_makes_no_sense(case):
    with pytest.raises(ValueError, match="samples must be at least 2"):
        confidence_intervals(*case, samples=1)
    with pytest.raises(ValueError, match="level must lie between 0 and 1"):
        confidence_intervals(*case, level=95)
