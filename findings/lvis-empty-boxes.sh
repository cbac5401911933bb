#!/bin/sh
# lvis 0.5.3, hotcoco 1.3.0
#
# A detection without area (a box of width 0, a mask of no pixel) is a mistake for hotcoco's LVIS evaluation and does not exist
# for lvis: one such detection above a perfect one gives AP 0.5 and 1.0.
#
# Why a good guess is wrong: hotcoco's LVISeval is meant to replace lvis with its numbers. lvis asks for annotations of an area
# greater than 0 where no range of areas is given, which drops these; pycocotools has the same function and does not.
#
# Who meets it: everybody whose detector clips boxes to the picture or gives masks that are empty after thresholding.
#
# lvis 0.5.3 needs `numpy.float`, which the script gives back, and opencv and matplotlib for drawings only, which it does without.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pycocotools==2.0.11 hotcoco==1.3.0 numpy==2.4.6
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps lvis==0.5.3
"$folder/venv/bin/python" - <<'PYTHON'
import contextlib, copy, io, logging, sys
from unittest.mock import MagicMock

import numpy as np

np.float = float
for module in ("cv2", "matplotlib", "matplotlib.pyplot", "matplotlib.patches"):
    sys.modules[module] = MagicMock()

import hotcoco
import lvis

TRUTH = {
    "info": {},
    "images": [
        {"id": 1, "height": 50, "width": 50, "coco_url": "", "neg_category_ids": [], "not_exhaustive_category_ids": []}
    ],
    "categories": [{"id": 1, "name": "thing", "frequency": "f"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "area": 100, "segmentation": []}],
}
ROWS = [
    {"image_id": 1, "category_id": 1, "bbox": [5, 5, 0, 10], "score": 0.9},
    {"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "score": 0.8},
]
truth = lvis.LVIS.__new__(lvis.LVIS)
truth.logger = logging.getLogger("lvis")
truth.dataset = copy.deepcopy(TRUTH)
truth._create_index()
evaluation = lvis.LVISEval(truth, lvis.LVISResults(truth, copy.deepcopy(ROWS)), "bbox")
evaluation.run()
theirs = round(float(evaluation.get_results()["AP"]), 4)
with contextlib.redirect_stdout(io.StringIO()):
    truth = hotcoco.LVIS(TRUTH)
    evaluation = hotcoco.LVISeval(truth, hotcoco.LVISResults(truth, ROWS), "bbox")
    evaluation.run()
other = round(evaluation.get_results()["AP"], 4)
print(f"lvis AP {theirs}, hotcoco AP {other}")
sys.exit(not (theirs == 1.0 and other == 0.5))
PYTHON
