#!/bin/sh
# faster-coco-eval 1.8.0, hotcoco 1.3.0, ultrafast-pycocotools 0.1.14
#
# An annotation without `area`, with a box of 50 x 50 = 2,500 square pixels and no mask, is medium for hotcoco and
# ultrafast-pycocotools and small for faster-coco-eval, which takes the missing area for 0. None says a word. (pycocotools 2.0.11
# stops with a KeyError.)
#
# Why a good guess is wrong: all three call themselves replacements of pycocotools with its numbers, and the AP over all sizes
# is the same; only APs, APm and APl move.
#
# Who meets it: users of files that were converted from formats without areas.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check faster-coco-eval==1.8.0 hotcoco==1.3.0 ultrafast-pycocotools==0.1.14 numpy==2.4.6
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

LIBRARIES = {
    "faster-coco-eval": (faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster, [1.0, -1.0, -1.0]),
    "hotcoco": (hotcoco.COCO, hotcoco.COCOeval, [-1.0, 1.0, -1.0]),
    "ultrafast-pycocotools": (ultrafast_pycocotools.COCO, ultrafast_pycocotools.COCOeval, [-1.0, 1.0, -1.0]),
}
for annotation in TRUTH["annotations"]:
    del annotation["area"]
holds = True
for name, (coco, evaluator, expected) in LIBRARIES.items():
    found = stats(coco, evaluator, TRUTH, ROWS)
    print(f"{name:<22} AP {found[0]}, APs {found[3]}, APm {found[4]}, APl {found[5]}")
    holds &= found[3:6] == expected
sys.exit(not holds)
PYTHON
