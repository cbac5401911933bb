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
        0.2503669960914464, 0.3830086178215127, 0.26677406086662914, 0.23962758720126937, 0.5033429057191433,
        0.5735973597359736, 0.35584554846759703, 0.12920812460367548, 0.2660473152030667, 0.6306172088780785,
        0.7099715099715099, 0.6611111111111111, 0.5762385762385762,
    ],
    ("bbox", 5): [
        0.19152079159672786, 0.3111341779339224, 0.19917825924981308, 0.1890007928457366, 0.33311056105610565,
        0.3957095709570957, 0.27903310926901786, 0.10345709570957097, 0.19207216981159483, 0.3815242728286207,
        0.4321937321937322, 0.357070707070707, 0.39591149591149594,
    ],
    ("segm", 300): [
        0.16741374029778244, 0.36433205609584424, 0.1291691615640205, 0.1602432461080074, 0.39435224474828434,
        0.44917491749174915, 0.25023922272280896, 0.08093051898711151, 0.17107147918342683, 0.48112394851525286,
        0.5358974358974359, 0.506902356902357, 0.4493025493025494,
    ],
    ("segm", 5): [
        0.12520832252845382, 0.2929214166837929, 0.09745113236515007, 0.1284443553638072, 0.23444444444444446,
        0.2874587458745875, 0.1939145991117784, 0.05594630415422495, 0.12576406431935805, 0.2884209992905645,
        0.32934472934472925, 0.2671717171717171, 0.28532948532948527,
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
