"""Whatever evaluator computes them, the numbers are pycocotools' to the last bit."""

import dataclasses
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import det_coco._evaluators
from det_coco import Detections, Protocol, evaluate, precision_recall
from det_coco._evaluators import by_hotcoco, by_pycocotools
from testing.evaluation_cases import cases, open_case, pycocotools

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
EVALUATORS = (by_hotcoco, by_pycocotools)


@pytest.fixture(params=EVALUATORS, ids=lambda function: function.__name__, scope="module")
def evaluator(request) -> Iterator[None]:
    """Each evaluator in turn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("det_coco.curves.match", request.param)
        yield


def awkward_ids(content):
    """The same annotations with the ids that pycocotools takes for "no match", in no order."""
    ids = list(range(-1, len(content["annotations"]) - 1))
    random.Random(0).shuffle(ids)
    annotations = [{**a, "id": id_} for a, id_ in zip(content["annotations"], ids, strict=True)]
    return {**content, "annotations": annotations}


def check_arrays(curves, oracle):
    for name in ("precision", "recall", "scores"):
        ours, theirs = getattr(curves, name), oracle.eval[name]
        assert ours.shape == theirs.shape
        assert np.array_equal(ours, theirs), name


@given(case=cases())
@settings(deadline=None, max_examples=100)
def test_all_numbers_are_those_of_pycocotools(evaluator, case):
    check_case(*case)


@given(case=cases(classes=(1200,)))
@settings(deadline=None, max_examples=2)
def test_a_thousand_classes(evaluator, case):
    check_case(*case)


def check_case(content, rows):
    with tempfile.TemporaryDirectory() as folder:
        index = open_case(awkward_ids(content), Path(folder))
        detections = Detections.from_rows(index, rows)
    for iou_type in ("bbox", "segm"):
        oracle, stats = pycocotools(content, rows, iou_type)
        curves = precision_recall(index, detections, iou_type)
        check_arrays(curves, oracle)
        metrics = curves.metrics()
        assert [metrics[name] for name in NAMES] == stats.tolist()


@given(case=cases(), data=st.data())
@settings(deadline=None, max_examples=50)
def test_other_rules_than_cocos(evaluator, case, data):
    content, rows = case
    limit = data.draw(st.sampled_from((1, 2, 5, 10, 300, None)))
    thresholds = data.draw(st.sampled_from(((0.5,), (0.1, 0.75, 1.0))))
    agnostic = data.draw(st.booleans())
    images = [image["id"] for image in content["images"]][: data.draw(st.integers(1, 3))]
    classes = tuple(category["id"] for category in content["categories"])[: data.draw(st.integers(1, 3))]
    protocol = Protocol(
        max_detections=limit,
        iou_thresholds=thresholds,
        area_ranges={"tiny": (0, 1023), "rest": (1024, 2000)},
        classes=classes,
        class_agnostic=agnostic,
    )
    with tempfile.TemporaryDirectory() as folder:
        index = open_case(awkward_ids(content), Path(folder))
    detections = Detections.from_rows(index, rows)
    for iou_type in ("bbox", "segm"):
        curves = precision_recall(index, detections, iou_type, protocol=protocol, image_ids=images)
        oracle, _ = pycocotools(
            content,
            rows,
            iou_type,
            imgIds=images,
            catIds=list(classes),
            iouThrs=np.array(thresholds),
            maxDets=list(curves.limits),
            areaRng=[[0, 1e10], [0, 1023], [1024, 2000]],
            areaRngLbl=["all", "tiny", "rest"],
            useCats=0 if agnostic else 1,
        )
        check_arrays(curves, oracle)
        names = curves.metrics().keys()
        assert ("AP50" in names) == (0.5 in thresholds)
        assert ("AR" if limit is None else f"AR{limit}") in names
        assert {"APtiny", "ARrest"} <= names


def test_many_detections_in_an_image(evaluator, tmp_path):
    content, rows = crowd_of_objects(150)
    index = open_case(content, tmp_path)
    assert evaluate(index, rows, ["bbox"])["bbox"]["AP"] == pytest.approx(0.663, abs=1e-3)
    for limit, name in ((150, "AR150"), (300, "AR300"), (None, "AR")):
        metrics = evaluate(index, rows, ["bbox"], protocol=Protocol(max_detections=limit))["bbox"]
        assert metrics["AP"] == metrics[name] == pytest.approx(1)


def crowd_of_objects(count):
    boxes = [[5.0 * (n % 16), 3.0 * (n // 16), 4.0, 2.0] for n in range(count)]
    annotations = [
        {"id": n + 1, "image_id": 7, "category_id": 1, "bbox": box, "area": 8.0, "iscrowd": 0, "segmentation": []}
        for n, box in enumerate(boxes)
    ]
    content = {
        "images": [{"id": 7, "file_name": "7.png", "height": 60, "width": 80}],
        "categories": [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}],
        "annotations": annotations,
    }
    rows = [{"image_id": 7, "category_id": 1, "bbox": box, "score": 0.9} for box in boxes]
    return content, rows


def test_more_objects_than_may_count_are_said(tmp_path, caplog):
    content, rows = crowd_of_objects(101)
    index = open_case(content, tmp_path)
    evaluate(index, rows, ["bbox"])
    (record,) = caplog.records
    assert record.getMessage().startswith("1 image has more than 100 objects of one class (up to 101, in image 7)")
    caplog.clear()
    evaluate(index, rows, ["bbox"], protocol=Protocol(max_detections=101))
    evaluate(index, rows, ["bbox"], protocol=Protocol(classes=("two",)))
    # Fifty of each class are fifty of one class, and 101 of any.
    for annotation in content["annotations"][:50]:
        annotation["category_id"] = 2
    index = open_case(content, tmp_path)
    evaluate(index, rows, ["bbox"])
    assert not caplog.records
    evaluate(index, rows, ["bbox"], protocol=Protocol(class_agnostic=True))
    assert len(caplog.records) == 1


def test_the_fallback_is_used_where_hotcoco_is_missing(tmp_path, monkeypatch):
    content, rows = crowd_of_objects(20)
    index = open_case(content, tmp_path)
    fast = evaluate(index, rows, ["bbox"])
    monkeypatch.setattr(det_coco._evaluators, "hotcoco", None)
    assert evaluate(index, rows, ["bbox"]) == fast


def test_all_that_is_promised_holds_where_hotcoco_is_missing():
    """The reported cases and LVIS, in a process that cannot import it."""
    files = [str(Path(__file__).with_name(name)) for name in ("test_reported_cases.py", "test_lvis.py")]
    code = (
        "import sys; sys.modules['hotcoco'] = None\n"
        "import pytest, det_coco._evaluators\n"
        "assert det_coco._evaluators.hotcoco is None\n"
        "options = ['-q', '-p', 'no:cacheprovider', '-k', 'not by_hotcoco and not both_evaluators']\n"
        "sys.exit(pytest.main([*options, *sys.argv[1:]]))"
    )
    done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_protocols_that_make_no_sense():
    for arguments, message in (
        ({"max_detections": 0}, "max_detections must be at least 1"),
        ({"max_detections": 1.5}, "max_detections must be a whole number"),
        ({"max_detections": "all"}, "max_detections must be a whole number"),
        ({"iou_thresholds": ()}, "iou_thresholds must ascend"),
        ({"iou_thresholds": (0.7, 0.5)}, "iou_thresholds must ascend"),
        ({"iou_thresholds": (0.5, 1.5)}, "iou_thresholds must ascend"),
        ({"area_ranges": {"x": (5, 4)}}, "area_ranges must have a smallest and a largest area"),
        ({"classes": ()}, "classes must name at least one class"),
        ({"class_agnostic": True, "federated": True}, "exclude each other"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(Protocol(), **arguments)
