#!/bin/sh
# datumaro 1.13.12, supervision 0.31.2
#
# Pascal VOC numbers pixels from 1 and means the last one too: xmin 1 and xmax 10 are ten pixels from the left edge. supervision
# reads such a box of 10 x 20 pixels so; datumaro as 9 x 19, a pixel further in: an IoU of 0.86 with the true one.
#
# Why a good guess is wrong: xmin, ymin, xmax, ymax look like corners. A round trip through the same converter shows nothing, and
# many tools that write the format do mean corners, so no file says which it is.
#
# Who meets it: everybody who brings VOC's own annotations to COCO. Small objects lose the highest IoU thresholds of AP.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check datumaro==1.13.12 supervision==0.31.2
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys
from pathlib import Path

from PIL import Image

root = Path("voc")
for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
    (root / name).mkdir(parents=True)
Image.new("RGB", (40, 30)).save(root / "JPEGImages/a.jpg")
(root / "ImageSets/Main/train.txt").write_text("a\n")
(root / "Annotations/a.xml").write_text(
    "<annotation><filename>a.jpg</filename><source><database>The VOC2007 Database</database></source>"
    "<size><width>40</width><height>30</height><depth>3</depth></size><object><name>cat</name><difficult>0</difficult>"
    "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>10</xmax><ymax>20</ymax></bndbox></object></annotation>"
)

import supervision
from datumaro.components.dataset import Dataset

found = supervision.DetectionDataset.from_pascal_voc(str(root / "JPEGImages"), str(root / "Annotations"))
first = [float(side) for side in found[0][2].xyxy[0]]
item = next(iter(Dataset.import_from(str(root), "voc")))
second = next([a.x, a.y, a.x + a.w, a.y + a.h] for a in item.annotations if a.type.name == "bbox")
print(f"supervision {first}\ndatumaro    {second}")
sys.exit(not (first == [0, 0, 10, 20] and second == [1, 1, 10, 20]))
PYTHON
