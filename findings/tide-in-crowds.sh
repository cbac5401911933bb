#!/bin/sh
# hotcoco 1.3.0 with NumPy 2.4.6
#
# `tide_errors` compares false detections with crowd regions too, and `confusion_matrix` counts a detection within a crowd of
# its own class as one of nothing.
#
# Why a good guess is wrong: hotcoco's AP is that of pycocotools to the last bit, which ignores what lies in a crowd, and its
# TIDE is that of tidecv where there is no crowd. tidecv looks for the cause of a mistake among objects alone: what overlaps a
# crowd by a quarter, and nothing else, is background there and badly placed here.
#
# Who meets it: everybody who looks for the causes of mistakes on COCO, where one annotation in a hundred is a crowd.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check hotcoco==1.3.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import hotcoco
import numpy as np

truth = hotcoco.COCO.from_arrays(
    [{"id": 1, "height": 100, "width": 100}], [{"id": 1, "name": "cat"}], np.array([1, 1]), np.array([1, 1]),
    np.array([[0.0, 0, 10, 10], [50, 50, 40, 40]]), area=np.array([100.0, 1600]), iscrowd=np.array([False, True]),
)


def evaluate(box):
    found = truth.load_res(np.array([[1, 0, 0, 10, 10, 0.9, 1], [1, *box, 0.8, 1]], dtype=float))
    evaluator = hotcoco.COCOeval(truth, found, "bbox")
    evaluator.evaluate()
    return evaluator


counts = evaluate([20, 50, 40, 40]).tide_errors()["counts"]  # a quarter of it in the crowd
matrix = evaluate([55, 55, 10, 10]).confusion_matrix()["matrix"]  # all of it
print("a quarter in a crowd:", counts)
print("within a crowd, row of what is no object:", matrix[1].tolist())
sys.exit(not (counts["Loc"] == 1 and counts["Bkg"] == 0 and matrix[1, 0] == 1))
PYTHON
