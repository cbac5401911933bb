#!/bin/sh
# pycocotools 2.0.11, hotcoco 1.3.0
#
# Masks are evaluated (`segm`), and the `bbox` of the results is not compared with anything. Still APm changes from 0.5 to 1.0
# when `bbox` is removed from the same results: where a row has a box, the area that makes a wrong detection small, medium or
# large is the box's, not the mask's.
#
# Why a good guess is wrong: rows with `bbox` and `segmentation` are what the format asks for and what one file for both
# evaluations has. The AP over all sizes is the same, so nothing shows.
#
# Who meets it: everybody who compares APs, APm, APl of masks with numbers of a system that strips the boxes (detectron2 does).
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
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def code(polygon):
    rle = mask.frPyObjects([polygon], 200, 200)[0]
    return {"size": rle["size"], "counts": rle["counts"].decode()}


triangle = [10, 10, 60, 10, 10, 60]
thin = [100, 10, 140, 10, 140, 30, 100, 30]  # 800 pixels: small
annotation = {**TRUTH["annotations"][0], "area": 1250, "segmentation": [triangle]}
truth = {**TRUTH, "annotations": [annotation]}
rows = [
    # Wrong, and its box is medium, as that of a loose box head may be.
    {"image_id": 1, "category_id": 1, "bbox": [95, 5, 50, 30], "score": 0.9, "segmentation": code(thin)},
    {"image_id": 1, "category_id": 1, "bbox": [10, 10, 50, 50], "score": 0.5, "segmentation": code(triangle)},
]
bare = [{key: value for key, value in row.items() if key != "bbox"} for row in rows]
holds = True
for name, coco, evaluator in (("pycocotools", COCO, COCOeval), ("hotcoco", hotcoco.COCO, hotcoco.COCOeval)):
    with_box, without = (stats(coco, evaluator, truth, given, "segm") for given in (rows, bare))
    print(f"{name:<12} segm with bbox: AP {with_box[0]}, APm {with_box[4]}; without: AP {without[0]}, APm {without[4]}")
    holds &= (with_box[0], with_box[4], without[0], without[4]) == (0.5, 0.5, 0.5, 1.0)
sys.exit(not holds)
PYTHON
