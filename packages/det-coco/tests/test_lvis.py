"""Federated evaluation, equal to the lvis package."""

import pickle
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from det_coco import CocoIndex, DataError, Detections, Protocol, evaluate, precision_recall
from det_coco._evaluators import by_hotcoco, by_pycocotools
from testing.evaluation_cases import cases, lvis_numbers, make_case, open_case

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf", "AR300", "ARs", "ARm", "ARl")


def index_of(content) -> CocoIndex:
    with tempfile.TemporaryDirectory() as folder:
        return open_case(content, Path(folder))


@given(case=cases(federated=True))
@settings(deadline=None, max_examples=60)
def test_both_evaluators_agree(case):
    content, rows = case
    index = index_of(content)
    detections = Detections.from_rows(index, rows)
    for limit in (300, 3, None):
        protocol = Protocol(max_detections=limit, federated=True)
        for iou_type in ("bbox", "segm"):
            arrays = []
            for evaluator in (by_hotcoco, by_pycocotools):
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr("det_coco.curves.match", evaluator)
                    curves = precision_recall(index, detections, iou_type, protocol=protocol)
                arrays.append((curves.precision, curves.recall, curves.scores))
            assert all(np.array_equal(a, b) for a, b in zip(*arrays, strict=True))


@pytest.mark.skipif(find_spec("lvis") is None, reason="lvis is not installed; its numbers for one case are checked")
@given(case=cases(federated=True))
@settings(deadline=None, max_examples=60)
def test_equals_lvis(case):
    content, rows = case
    if not rows:
        return
    index = index_of(content)
    for iou_type in ("bbox", "segm"):
        for limit in (300, 3):
            theirs = lvis_numbers(content, rows, iou_type, limit)
            protocol = Protocol(max_detections=limit, federated=True)
            ours = evaluate(index, rows, [iou_type], protocol=protocol)[iou_type]
            assert [ours[name.replace("300", str(limit))] for name in NAMES] == theirs


# Computed by `lvis_numbers` with lvis 0.5.3.
RECORDED = {
    ("bbox", 300): [
        0.2686367816914933, 0.4044929951277222, 0.29243139456343076, 0.2514557592810836, 0.5163237990465713,
        0.5735973597359736, 0.35461702970380277, 0.16187924595480124, 0.289414069415876, 0.6406949602122015,
        0.7090277777777777, 0.6611111111111111, 0.5762385762385762,
    ],
    ("bbox", 5): [
        0.20736294146000073, 0.3296241912416876, 0.22081139736380168, 0.1982067009489277, 0.33591584158415844,
        0.3957095709570957, 0.2836920177208388, 0.1430799014914754, 0.195316905167688, 0.40675685234305914,
        0.46041666666666675, 0.357070707070707, 0.39591149591149594,
    ],
    ("segm", 300): [
        0.17497298143796852, 0.36839885927599353, 0.1317489211466704, 0.1619640740763722, 0.39504554026831257,
        0.44917491749174915, 0.2451861866207828, 0.09533980429770461, 0.1843929533954183, 0.4836251105216622,
        0.5333333333333333, 0.49781144781144787, 0.4493025493025494,
    ],
    ("segm", 5): [
        0.13113263781936735, 0.2958227208564033, 0.09763622822181967, 0.1266639781367293, 0.23036303630363036,
        0.2874587458745875, 0.19187549128147388, 0.07590711002303747, 0.1256153121535907, 0.2985057471264368,
        0.34027777777777773, 0.2580808080808081, 0.28532948532948527,
    ],
}  # fmt: skip


@pytest.mark.parametrize(("iou_type", "limit"), RECORDED)
@pytest.mark.parametrize("evaluator", [by_hotcoco, by_pycocotools])
def test_equals_the_numbers_that_lvis_gave(monkeypatch, evaluator, iou_type, limit):
    monkeypatch.setattr("det_coco.curves.match", evaluator)
    content, rows = make_case(3, images=30, classes=3, objects=80, detections=300, federated=True)
    protocol = Protocol(max_detections=limit, federated=True)
    ours = evaluate(index_of(content), rows, [iou_type], protocol=protocol)[iou_type]
    assert [ours[name.replace("300", str(limit))] for name in NAMES] == RECORDED[iou_type, limit]


def test_what_lvis_needs(tmp_path):
    content, rows = make_case(0, images=2, classes=3, objects=5, detections=5)
    with pytest.raises(DataError, match="has no 'neg_category_ids', so it cannot be evaluated by LVIS's rules"):
        evaluate(open_case(content, tmp_path), rows, protocol=Protocol.lvis())
    content, rows = make_case(0, images=2, classes=3, objects=5, detections=5, federated=True)
    content["images"][1]["not_exhaustive_category_ids"] = [-5]
    with pytest.raises(DataError, match=r"'not_exhaustive_category_ids' of image .* must be a list of category ids"):
        open_case(content, tmp_path)
    del content["categories"][1]["frequency"]
    with pytest.raises(DataError, match="must have a 'frequency' of r, c or f"):
        open_case(content, tmp_path)


def test_the_federation_travels_to_other_processes(tmp_path):
    content, rows = make_case(0, images=3, classes=3, objects=9, detections=9, federated=True)
    index = open_case(content, tmp_path)
    there = pickle.loads(pickle.dumps(index))
    assert evaluate(there, rows, protocol=Protocol.lvis()) == evaluate(index, rows, protocol=Protocol.lvis())
