#!/bin/sh
# label-studio-sdk 2.1.2, which Label Studio 1.23.2 exports with
#
# Label Studio has no region of several polygons. Two polygons of one object can be joined by a relation, which is stored,
# shown and part of its own JSON; its export as COCO writes two annotations of one polygon each, and says nothing.
#
# Why a good guess is wrong: COCO's format has a list of polygons for just this, and the relation is there to fill it.
#
# Who meets it: whoever imports masks of hidden objects as predictions and exports them corrected; an object that a post
# divides comes back as two. An outline whose parts are joined by bridges of no width comes back as one.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check label-studio-sdk==2.1.2
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import json
import pathlib
import sys

from label_studio_sdk.converter import Converter

INTERFACE = """<View><Image name="image" value="$image"/>
<PolygonLabels name="label" toName="image"><Label value="cow"/></PolygonLabels></View>"""


def region(name, x):
    points = [[x, 10], [x + 20, 10], [x + 20, 90], [x, 90]]
    return {
        "id": name, "type": "polygonlabels", "from_name": "label", "to_name": "image",
        "original_width": 200, "original_height": 100,
        "value": {"points": points, "closed": True, "polygonlabels": ["cow"]},
    }


relation = {"type": "relation", "from_id": "head", "to_id": "tail", "direction": "right"}
result = [region("head", 10), region("tail", 60), relation]
task = {"id": 1, "data": {"image": "https://example.org/cow.jpg"}, "annotations": [{"id": 1, "result": result}]}
folder = pathlib.Path(sys.argv[1])
(folder / "export.json").write_text(json.dumps([task]))
converter = Converter(INTERFACE, str(folder), download_resources=False)
converter.convert(str(folder / "export.json"), str(folder / "coco"), "COCO", is_dir=False)
rows = json.loads((folder / "coco" / "result.json").read_text())["annotations"]
print(f"one cow of two polygons: {len(rows)} annotations, of {[len(row['segmentation']) for row in rows]} polygons")
sys.exit(len(rows) != 2)
PYTHON
