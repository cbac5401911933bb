#!/bin/sh
# pycocotools 2.0.11, hotcoco 1.3.0
#
# With `params.maxDets = [1, 10, 300]` pycocotools gives AP = -1, which otherwise means "no object to find", beside AP50 = 1.
# hotcoco gives AP = 1.
#
# Why a good guess is wrong: AP50, AP75, APs and all recalls follow `maxDets[2]`. AP alone is looked up at 100 detections whatever
# `maxDets` holds, and without a 100 in the list there is nothing to average.
#
# Who meets it: everybody who raises the limit because images hold more than 100 objects (crowds, cells, aerial pictures), and
# those who choose the best checkpoint by AP: all are -1.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pycocotools==2.0.11 hotcoco==1.3.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import contextlib, copy, io, sys


def stats(coco, evaluator, truth, rows, iou_type="bbox", **parameters):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        ground_truth = coco()
        ground_truth.dataset = copy.deepcopy(truth)
        ground_truth.createIndex()
        evaluation = evaluator(ground_truth, ground_truth.loadRes(copy.deepcopy(rows)), iou_type)
        for name, value in parameters.items():
            setattr(evaluation.params, name, value)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [round(float(value), 4) for value in evaluation.stats]


BOXES = [[10, 10, 50, 50], [100, 100, 40, 40]]
TRUTH = {
    "info": {},
    "images": [{"id": 1, "file_name": "1.jpg", "height": 200, "width": 200}],
    "categories": [{"id": 1, "name": "thing"}],
    "annotations": [
        {"id": n + 1, "image_id": 1, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for n, box in enumerate(BOXES)
    ],
}
ROWS = [{"image_id": 1, "category_id": 1, "bbox": box, "score": 0.9} for box in BOXES]

import hotcoco
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

theirs = stats(COCO, COCOeval, TRUTH, ROWS, maxDets=[1, 10, 300])
other = stats(hotcoco.COCO, hotcoco.COCOeval, TRUTH, ROWS, maxDets=[1, 10, 300])
usual = stats(COCO, COCOeval, TRUTH, ROWS)
print(f"pycocotools, 100 detections: AP {usual[0]}, AP50 {usual[1]}")
print(f"pycocotools, 300 detections: AP {theirs[0]}, AP50 {theirs[1]}")
print(f"hotcoco, 300 detections:     AP {other[0]}, AP50 {other[1]}")
sys.exit(not (usual[:2] == [1.0, 1.0] and theirs[:2] == [-1.0, 1.0] and other[:2] == [1.0, 1.0]))
PYTHON
