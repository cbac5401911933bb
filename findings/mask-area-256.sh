#!/bin/sh
# pycocotools 2.0.11 with NumPy 2.4.6
#
# `pycocotools.mask.area` takes a list of masks: 255 of them work, 256 raise OverflowError.
#
# Why a good guess is wrong: every mask is valid, and the other functions of the module take lists of any length. `area` puts
# the number of masks into an array of 8 bits; NumPy 1 let it wrap around, and the value is not even used, so it worked.
#
# Who meets it: everybody who measures all masks of a results file in one call.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pycocotools==2.0.11 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
from pycocotools import mask

code = mask.encode(np.ones((4, 5), np.uint8, order="F"))
print("255 masks:", mask.area([code] * 255).sum())
try:
    print("256 masks:", mask.area([code] * 256).sum())
    holds = False
except OverflowError as error:
    print("256 masks: OverflowError:", error)
    holds = len(mask.toBbox([code] * 256)) == 256
sys.exit(not holds)
PYTHON
