#!/bin/sh
# pycocotools 2.0.11, faster-coco-eval 1.8.0, hotcoco 1.3.0, ultrafast-pycocotools 0.1.14
#
# An object whose annotation id is 0 can be found by every detection and still counts as missed: two perfect boxes give an AP of
# 0.25 in pycocotools and faster-coco-eval. hotcoco and ultrafast-pycocotools give 1.0 for the same files, though both promise
# pycocotools' numbers to the last bit.
#
# Why a good guess is wrong: ids look like names. pycocotools writes the id of the object found into an array of zeros, in which 0
# says "none". Whoever changes the evaluator to one that is "identical" sees AP jump.
#
# Who meets it: everybody whose annotation file counts from 0, as the COCO exports of several labelling tools do.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pycocotools==2.0.11 faster-coco-eval==1.8.0 hotcoco==1.3.0 ultrafast-pycocotools==0.1.14 numpy==2.4.6
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

import faster_coco_eval
import hotcoco
import ultrafast_pycocotools
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

LIBRARIES = {
    "pycocotools": (COCO, COCOeval, 0.2525),
    "faster-coco-eval": (faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster, 0.2525),
    "hotcoco": (hotcoco.COCO, hotcoco.COCOeval, 1.0),
    "ultrafast-pycocotools": (ultrafast_pycocotools.COCO, ultrafast_pycocotools.COCOeval, 1.0),
}
from_zero = copy.deepcopy(TRUTH)
for annotation in from_zero["annotations"]:
    annotation["id"] -= 1
holds = True
for name, (coco, evaluator, expected) in LIBRARIES.items():
    one, zero = (stats(coco, evaluator, truth, ROWS)[0] for truth in (TRUTH, from_zero))
    print(f"{name:<22} AP with ids from 1: {one}, from 0: {zero}")
    holds &= one == 1.0 and zero == expected
sys.exit(not holds)
PYTHON
