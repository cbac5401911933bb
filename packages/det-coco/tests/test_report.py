"""What a report says, against other computations of the same."""

import json
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from det_coco import Detections, Protocol, difference_intervals, evaluate, match_detections
from det_coco import intervals as intervals_module
from det_coco._columns import make_columns
from det_coco._evaluators import by_hotcoco
from det_coco.annotations import CocoIndex
from det_coco.report import analyse, compare
from det_coco.report import confusion as confusion_module
from det_coco.report.outcomes import KINDS, WORDS
from det_coco.report.scores import ScoreCurve
from testing.evaluation_cases import distinct, make_case, open_case, tide_numbers


def made(folder, seed=3, **sizes):
    """A case: its content, its rows, the index and the detections."""
    sizes = {"images": 6, "classes": 3, "objects": 40, "detections": 120, "crowded": 0.1} | sizes
    content, rows = make_case(seed, **sizes)
    rows = distinct(rows, seed)
    index = open_case(content, folder)
    return content, rows, index, Detections.from_rows(index, rows)


# Computed by `tide_numbers` with tidecv 1.0.1.
TIDE = {
    (3, "bbox"): (
        {"Cls": 9, "Loc": 28, "Both": 10, "Dupe": 12, "Bkg": 40, "Miss": 5},
        [0.0637242175755544, 0.1718611446085284, 0.020468458843620568, 0.008060529719909545, 0.06574202495124826,
         0.03586476927262613],
    ),
    (3, "segm"): (
        {"Cls": 8, "Loc": 34, "Both": 12, "Dupe": 8, "Bkg": 40, "Miss": 8},
        [0.023717401963557306, 0.19017472136096483, 0.009499180705749132, 0.005402185558228396, 0.03802302387301893,
         0.050906518322390966],
    ),
    (4, "bbox"): (
        {"Cls": 6, "Loc": 27, "Both": 8, "Dupe": 16, "Bkg": 38, "Miss": 3},
        [0.01962366566326967, 0.17368726325518005, 0.008587201301492691, 0.014164695508966468, 0.07213037419287936,
         0.0458641102205458],
    ),
    (4, "segm"): (
        {"Cls": 6, "Loc": 27, "Both": 6, "Dupe": 15, "Bkg": 40, "Miss": 3},
        [0.015236322167015431, 0.15248279351851102, 0.006915590672898126, 0.012853999638988398, 0.09856658467981078,
         0.044580648541044494],
    ),
}  # fmt: skip


@pytest.fixture
def tide_recalls(monkeypatch):
    """TIDE's levels of recall: n / 100, of which COCO's differ in the last bit."""
    monkeypatch.setattr(intervals_module, "_RECALLS", np.arange(101) / 100)


@pytest.mark.parametrize(("seed", "iou_type"), TIDE)
def test_mistakes_are_those_of_tide(tmp_path, tide_recalls, seed, iou_type):
    *_, index, detections = made(tmp_path, seed)
    report = analyse(index, detections, [iou_type], samples=2)[iou_type]
    counts, costs = TIDE[seed, iou_type]
    assert report.counts == counts
    assert list(report.costs) == list(counts) == list(WORDS)
    assert list(report.costs.values()) == pytest.approx(costs, abs=1e-9)


@pytest.mark.skipif(
    find_spec("tidecv") is None, reason="tidecv is not installed; its numbers for some cases are checked"
)
@pytest.mark.parametrize("seed", range(20))
def test_equals_tide(tmp_path, tide_recalls, seed):
    content, rows, index, detections = made(tmp_path, seed, crowded=0.1 * (seed % 2))
    counts, costs = tide_numbers(content, rows, "bbox")
    report = analyse(index, detections, ["bbox"], samples=2)["bbox"]
    assert report.counts == counts
    assert report.costs == pytest.approx(costs, abs=1e-9)


def test_costs_hardly_depend_on_the_levels_of_recall(tmp_path):
    *_, index, detections = made(tmp_path)
    costs = analyse(index, detections, ["bbox"], samples=2)["bbox"].costs
    assert list(costs.values()) == pytest.approx(TIDE[3, "bbox"][1], abs=2e-3)


@pytest.mark.parametrize("seed", range(5))
def test_without_crowds_mistakes_are_those_of_hotcoco(tmp_path, seed):
    *_, index, detections = made(tmp_path, seed, crowded=0)
    for iou_type in ("bbox", "segm"):
        report = analyse(index, detections, [iou_type], samples=2)[iou_type]
        theirs = by_hotcoco(make_columns(index, detections, iou_type, Protocol())).tide_errors()
        assert report.counts == theirs["counts"]
        assert report.costs == pytest.approx({kind: theirs["delta_ap"][kind] for kind in WORDS}, abs=1e-9)


def test_each_kind_of_mistake_on_its_own(tmp_path, content, write):
    """One detection of each kind, with the object that it is about."""
    content["annotations"][1] |= {"image_id": 7, "bbox": [15, 20, 10, 10], "area": 100}
    file, folder = write(content)
    index = CocoIndex.load(file, folder)
    truth = {"cat": [2, 3, 10, 6], "dog": [15, 20, 10, 10]}
    found = [
        ("cat", truth["cat"], 0.9, "right"), ("cat", [2, 3, 10, 7], 0.8, "Dupe"), ("dog", truth["cat"], 0.7, "Cls"),
        ("dog", [15, 20, 10, 4], 0.6, "Loc"), ("cat", [15, 20, 10, 4], 0.5, "Both"), ("cat", [0, 33, 4, 4], 0.4, "Bkg"),
    ]  # fmt: skip
    ids = {"cat": 9, "dog": 4}
    rows = [{"image_id": 7, "category_id": ids[name], "bbox": box, "score": score} for name, box, score, _ in found]
    report = analyse(index, Detections.from_rows(index, rows), ["bbox"], samples=2)["bbox"]
    became = report.outcomes
    kinds = {row: KINDS[kind] for row, kind in zip(became.matches.detections.tolist(), became.kinds, strict=True)}
    assert kinds == {row: kind for row, (*_, kind) in enumerate(found)}
    names = [index.class_names[index.labels[n]] if n >= 0 else None for n in became.partners]
    of_row = dict(zip(became.matches.detections.tolist(), names, strict=True))
    assert [of_row[row] for row in range(6)] == ["cat", "cat", "cat", "dog", "dog", None]
    assert became.overlaps[became.matches.detections == 1] == pytest.approx(6 / 7)
    assert report.counts["Miss"] == 0  # the dog would be found if its detection were larger
    # Twice as good a dog, from 0 to 1, with the false detections of a higher score before it.
    assert report.costs["Loc"] == pytest.approx(0.5 / 2)


def test_calibration_is_that_of_hotcoco(tmp_path):
    *_, index, detections = made(tmp_path)
    ours = analyse(index, detections, ["bbox"], samples=2)["bbox"].calibration
    theirs = by_hotcoco(make_columns(index, detections, "bbox", Protocol())).calibration()
    assert ours.error == pytest.approx(theirs["ece"])
    assert ours.counts.tolist() == [part["count"] for part in theirs["bins"]]
    assert ours.shares == pytest.approx([part["avg_accuracy"] for part in theirs["bins"]])
    assert ours.scores == pytest.approx([part["avg_confidence"] for part in theirs["bins"]])


@pytest.mark.parametrize("seed", range(6))
def test_confusion_is_that_of_a_plain_matching(tmp_path, seed):
    *_, index, detections = made(tmp_path, seed, crowded=0.2)
    report = analyse(index, detections, ["bbox"], samples=2)["bbox"]
    ignored = set(report.outcomes.matches.detections[report.outcomes.matches.ignored[0]].tolist())
    corners = index.file_boxes.copy()
    corners[:, 2:] += corners[:, :2]
    expected = np.zeros((4, 4), dtype=int)
    free = {n for n in range(index.num_instances) if not index.crowd[n]}
    for row in np.argsort(-detections.scores):
        if row in ignored or detections.scores[row] < report.min_score:
            continue
        label = index.category_ids.index(int(detections.category_ids[row]))
        rows = index.instances(index.position(int(detections.image_ids[row])))
        x, y, w, h = detections.boxes[row]
        best, which = 0.5, None
        for n in sorted(free & set(range(rows.start, rows.stop))):
            x1, y1, x2, y2 = corners[n]
            inner = max(min(x + w, x2) - max(x, x1), 0) * max(min(y + h, y2) - max(y, y1), 0)
            iou = inner / (w * h + (x2 - x1) * (y2 - y1) - inner)
            if iou >= best:
                best, which = iou, n
        free -= {which}
        expected[3 if which is None else index.labels[which], label] += 1
    for n in free:
        expected[index.labels[n], 3] += 1
    assert report.confusion.matrix.tolist() == expected.tolist()


def test_without_hotcoco_there_is_no_confusion_matrix(tmp_path, monkeypatch):
    *_, index, detections = made(tmp_path)
    whole = analyse(index, detections, ["bbox"], samples=2)["bbox"].numbers()
    monkeypatch.setattr("det_coco._evaluators.hotcoco", None)
    monkeypatch.setattr(confusion_module, "hotcoco", None)
    less = analyse(index, detections, ["bbox"], samples=2)["bbox"].numbers()
    assert less == whole | {"confusion": None}


def test_thresholds_are_the_best_of_all():
    scores, right = np.array([0.9, 0.8123456, 0.8123455, 0.5, 0.2]), np.array([1, 1, 0, 1, 0])
    curve = ScoreCurve(scores=scores, precision=np.cumsum(right) / np.arange(1, 6), recall=np.cumsum(right) / 4)
    best = curve.best()
    assert best.f1 == max(2 * p * r / (p + r) for p, r in zip(curve.precision, curve.recall, strict=True))
    assert (best.score, best.precision, best.recall) == (0.5, 0.75, 0.75)
    precise = curve.at_precision(1.0)
    assert precise.recall == 0.5
    assert precise.score == 0.8123456  # no shorter number tells it from the next
    assert curve.at_precision(0.99999).score == precise.score
    nothing = ScoreCurve(scores=np.zeros(0), precision=np.zeros(0), recall=np.zeros(0))
    assert nothing.best() is None
    assert nothing.at_precision(0.5) is None


def test_a_threshold_does_what_it_says(tmp_path):
    """The detections of a threshold and better have its precision and its recall."""
    *_, index, detections = made(tmp_path)
    report = analyse(index, detections, ["bbox"], samples=2, wished_precision=0.6)["bbox"]
    for threshold in (report.best, report.precise):
        kept = detections[detections.scores >= threshold.score]
        again = analyse(index, kept, ["bbox"], samples=2)["bbox"]
        found = int((again.outcomes.kinds == 0).sum())
        assert found / len(again.outcomes.matches.truth) == threshold.recall
        assert found / (found + again.outcomes.wrong.sum()) == pytest.approx(threshold.precision)
    assert report.precise.precision >= 0.6


def test_groups_by_number_are_evaluations_of_those_images(tmp_path):
    *_, index, detections = made(tmp_path, images=8)
    report = analyse(index, detections, ["bbox"], samples=2)["bbox"]
    counts = np.bincount(
        np.repeat(np.arange(len(index)), np.diff(index.image_instances))[~index.crowd], minlength=len(index)
    )
    bounds = {"1": (1, 1), "2 to 3": (2, 3), "4 to 7": (4, 7), "8 to 15": (8, 15)}
    groups = [group for group in report.groups if group.by == "objects in the image"]
    assert len(groups) > 1
    for group in groups:
        least, most = bounds[group.name]
        chosen = index.image_ids[(counts >= least) & (counts <= most)]
        metrics = evaluate(index, detections, ["bbox"], image_ids=chosen)["bbox"]
        assert group.objects == counts[(counts >= least) & (counts <= most)].sum()
        assert (group.ap, group.ap50, group.ar) == pytest.approx(
            (metrics["AP"], metrics["AP50"], metrics["AR100"]), abs=1e-12
        )


def test_groups_by_size_are_coco_s(tmp_path):
    *_, index, detections = made(tmp_path)
    report = analyse(index, detections, ["bbox"], samples=2)["bbox"]
    sizes = [group for group in report.groups if group.by == "size"]
    assert [group.ap for group in sizes] == [report.metrics[f"AP{size}"] for size in "sml"]
    assert [group.ar for group in sizes] == [report.metrics[f"AR{size}"] for size in "sml"]


def test_groups_by_border(tmp_path, content, write):
    """Whole objects are found and cut ones are not; a false detection at the border harms the cut ones alone."""
    content["annotations"] = [
        {"id": n, "image_id": 7, "category_id": 9, "bbox": box, "area": 36, "iscrowd": 0, "segmentation": []}
        for n, box in enumerate([[0, 5, 6, 6], [10, 10, 6, 6], [24, 20, 6, 6]], start=1)
    ]
    file, folder = write(content)
    index = CocoIndex.load(file, folder)
    rows = [
        {"image_id": 7, "category_id": 9, "bbox": [0, 30, 6, 6], "score": 0.9},
        {"image_id": 7, "category_id": 9, "bbox": [10, 10, 6, 6], "score": 0.8},
    ]
    report = analyse(index, Detections.from_rows(index, rows), ["bbox"], samples=2)["bbox"]
    cut, whole = (group for group in report.groups if group.by == "border")
    assert (cut.name, cut.objects, cut.ap, cut.ar) == ("cut by the border", 2, 0, 0)
    assert (whole.name, whole.objects) == ("whole", 1)
    assert (whole.ap, whole.ap50, whole.ar) == pytest.approx((1, 1, 1))


def test_classes(tmp_path):
    *_, index, detections = made(tmp_path)
    report = analyse(index, detections, ["segm"])["segm"]
    metrics = evaluate(index, detections, ["segm"])["segm"]
    assert report.metrics == metrics
    for result in report.classes:
        alone = evaluate(index, detections, ["segm"], protocol=Protocol(classes=(result.name,)))["segm"]
        assert (result.ap50, result.ap75, result.ar) == (alone["AP50"], alone["AP75"], alone["AR100"])
        assert result.interval.value == pytest.approx(alone["AP"])
        assert result.objects == (~index.crowd & (index.labels == result.label)).sum()
    counted = report.outcomes.wrong & (report.outcomes.matches.scores >= report.min_score)
    assert sum(sum(result.mistakes.values()) for result in report.classes) == counted.sum()
    assert sum(result.missed for result in report.classes) == (~report.outcomes.found(report.min_score)).sum()


@pytest.mark.parametrize(("objects", "detections"), [(0, 0), (0, 30), (30, 0)])
def test_there_may_be_nothing(tmp_path, objects, detections):
    *_, index, found = made(tmp_path, objects=objects, detections=detections, crowded=0)
    report = analyse(index, found, ["bbox"], samples=2)["bbox"]
    assert report.counts == dict.fromkeys(WORDS, 0) | {"Bkg": detections, "Miss": objects}
    # Without its missed objects a class has none, and no detection either.
    assert set(report.costs.values()) == {0}
    assert report.best is None
    assert sum(group.objects for group in report.groups if group.by == "border") == objects
    assert sum(result.missed for result in report.classes) == objects
    assert report.confusion.matrix.sum() == objects + detections
    assert json.loads(json.dumps(report.numbers()))["metrics"] == report.metrics


@pytest.mark.parametrize(
    "protocol", [Protocol(iou_thresholds=(0.7, 0.8)), Protocol(class_agnostic=True), Protocol.lvis(), None]
)
def test_rules_are_those_of_the_evaluation(tmp_path, protocol):
    content, rows = make_case(3, images=6, classes=3, objects=40, detections=120, federated=True)
    index = open_case(content, tmp_path)
    detections = Detections.from_rows(index, rows)
    report = analyse(index, detections, ["bbox"], protocol=protocol, samples=2)["bbox"]
    assert report.metrics == evaluate(index, detections, ["bbox"], protocol=protocol)["bbox"]
    assert report.intervals["AP"].value == pytest.approx(report.metrics["AP"])
    # Mistakes are told at an IoU of 0.5 whatever the thresholds.
    at_half = match_detections(index, detections, protocol=replace(protocol or Protocol(), iou_thresholds=(0.5,)))
    right = (at_half.objects[0] >= 0) & ~at_half.ignored[0]
    assert (report.outcomes.kinds == KINDS.index("right")).sum() == right.sum()
    assert (report.confusion is None) == (protocol is not None and protocol.class_agnostic)


def test_a_precision_that_makes_no_sense(index):
    with pytest.raises(ValueError, match=r"above 0 and up to 1, got 90"):
        analyse(index, Detections.from_rows(index, []), ["bbox"], wished_precision=90)


def test_differences_are_those_of_paired_drawings(tmp_path):
    _, rows, index, first = made(tmp_path)
    second = Detections.from_rows(index, [row for n, row in enumerate(rows) if n % 3])
    compared = compare(index, {"a": first, "b": second}, ["bbox"], samples=20)
    expected = difference_intervals(index, first, second, samples=20)
    assert compared.differences["bbox"]["b"].intervals == expected
    reports = compared.reports["bbox"]
    before, after = (
        {int(n) for n in report.outcomes.matches.truth[report.outcomes.found(report.min_score)]}
        for report in reports.values()
    )
    assert set(compared.differences["bbox"]["b"].gained.tolist()) == after - before
    assert set(compared.differences["bbox"]["b"].lost.tolist()) == before - after
    numbers = compared.numbers(index)["bbox"]
    assert numbers["results"]["b"] == analyse(index, second, ["bbox"])["bbox"].numbers() | {
        key: numbers["results"]["b"][key] for key in ("intervals", "classes")
    }
    assert numbers["differences"]["b"]["lost"] == index.annotation_ids[sorted(before - after)].tolist()


def test_one_result_has_nothing_to_be_compared_with(index):
    with pytest.raises(ValueError, match="two or more, got 1"):
        compare(index, {"a": Detections.from_rows(index, [])})
