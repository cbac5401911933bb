"""Annotations to correct in Label Studio: the tasks that it imports, and the labelling interface that they are for."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree as ET

import numpy as np

from det_coco.outputs import whole_file
from det_coco.pictures import class_colour

_TAGS = {"polygonlabels": "PolygonLabels", "rectanglelabels": "RectangleLabels"}
"""A kind of region, and what allows it in an interface; a tag's name is its kind."""


def write_tasks(content: Mapping[str, Any], root: Path, out: Path) -> str:
    """Write `tasks.json`, pre-annotations with coordinates in per cent of the picture, and `interface.xml`.

    Sources: labelstud.io/guide/predictions, /guide/task_format, /guide/storage (local files), tried with 1.23.2.

    Args:
        content: annotations in COCO's JSON shape, each mask one polygon; those to ignore are left out.
        root: folder of the pictures, from which their file names go.
        out: folder to write to.

    Returns:
        what to do with them, as lines.

    Raises:
        DataError: the folder cannot be written.
    """
    names = {category["id"]: category["name"] for category in content["categories"]}
    # It serves folders below its document root, never that root itself.
    below = root.parent
    tasks = [_task(image, content["annotations"], names, root.relative_to(below)) for image in content["images"]]
    kinds = {region["type"] for task in tasks for region in task["predictions"][0]["result"]}
    for name, text in (
        ("tasks.json", json.dumps(tasks, ensure_ascii=False)),
        ("interface.xml", _interface(list(dict.fromkeys(names.values())), sorted(kinds))),
    ):
        with whole_file(out / name) as file:
            file.write(text.encode())
    folders = {root} if root != below else {root / Path(image["file_name"]).parts[0] for image in content["images"]}
    storages = ", ".join(map(str, sorted(folders)))
    return (
        "In Label Studio, started with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and\n"
        f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={below}:\n"
        f"  Settings, Labeling Interface, Code: {out / 'interface.xml'}\n"
        f"  Settings, Cloud Storage, Add Source Storage, Local Files: {storages} (save without a sync)\n"
        f"  Import: {out / 'tasks.json'}"
    )


def _task(
    image: Mapping[str, Any], records: list[dict[str, Any]], names: Mapping[int, str], folder: Path
) -> dict[str, Any]:
    own = [record for record in records if record["image_id"] == image["id"] and not record.get("ignore")]
    path = quote((folder / image["file_name"]).as_posix())
    prediction = {"model_version": "det", "result": [_region(record, image, names) for record in own]}
    if own:
        prediction["score"] = min(record["score"] for record in own)  # by which its list of tasks can be sorted
    return {"data": {"image": f"/data/local-files/?d={path}"}, "predictions": [prediction]}


def _region(record: Mapping[str, Any], image: Mapping[str, Any], names: Mapping[int, str]) -> dict[str, Any]:
    """A polygon, or a rectangle where there is no mask.

    An object is one region: Label Studio has none of several polygons, and its exports as COCO and as YOLO know nothing
    of relations between regions.
    """
    scale = 100 / np.array([image["width"], image["height"]])
    if record.get("segmentation"):
        kind = "polygonlabels"
        (outline,) = record["segmentation"]
        value: dict[str, Any] = {"points": (np.reshape(outline, (-1, 2)) * scale).tolist(), "closed": True}
    else:
        kind = "rectanglelabels"
        box = (np.reshape(record["bbox"], (2, 2)) * scale).ravel().tolist()
        value = dict(zip(("x", "y", "width", "height"), box, strict=True)) | {"rotation": 0}
    return {
        "id": str(record["id"]),
        "type": kind,
        "from_name": kind,
        "to_name": "image",
        "value": value | {kind: [names[record["category_id"]]]},
        "score": record["score"],
        "original_width": image["width"],
        "original_height": image["height"],
        "image_rotation": 0,
    }


def _interface(names: list[str], kinds: list[str]) -> str:
    """The labelling interface for regions of these kinds, with the colours of our drawings."""
    view = ET.Element("View")
    ET.SubElement(view, "Image", name="image", value="$image", zoom="true")
    for kind in kinds:
        tag = ET.SubElement(view, _TAGS[kind], name=kind, toName="image")
        for label, name in enumerate(names):
            ET.SubElement(tag, "Label", value=name, background=f"#{bytes(class_colour(label)).hex()}")
    ET.indent(view)
    return ET.tostring(view, encoding="unicode") + "\n"
