"""Writing splits as COCO's JSON."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from det_coco._parse_masks import measured_area


def write_coco(
    content: dict[str, Any], names: dict[int, str], sizes: dict[int, tuple[int, int]], out: Path, split: str
) -> Counter[str]:
    """Write one split as `<out>/annotations/instances_<split>.json`.

    Everything that the source says is written as it is; what COCO's tools need and the source does not have is added.

    Args:
        content: the split in COCO's JSON shape.
        names: image id -> name of its picture in `<out>/<split>`, for the images to write.
        sizes: image id -> height and width in pixels, for those that have none.
        out: the data set's folder.
        split: the split's name.

    Returns:
        how many things of each kind could not be kept.
    """
    images = [
        _named(image, names[image["id"]], sizes[image["id"]]) for image in content["images"] if image["id"] in names
    ]
    # Files without truth may have no annotations.
    chosen = (record for record in content.get("annotations", []) if record["image_id"] in names)
    annotations = [_completed(record, *sizes[record["image_id"]]) for record in chosen]
    lost: Counter[str] = Counter()
    ids = [record.get("id") for record in annotations]
    if len(set(ids)) != len(ids) or not all(type(i) is int and i > 0 for i in ids):
        annotations = [record | {"id": number} for number, record in enumerate(annotations, start=1)]
        lost["annotation ids that COCO's tools cannot tell apart (new: 1, 2, ...)"] = sum(type(i) is int for i in ids)
    for image in images:
        image.pop("picture", None)
    written = {"images": images, "annotations": annotations}
    file = out / "annotations" / f"instances_{split}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8") as stream:
        json.dump({k: v for k, v in content.items() if k != "remarks"} | written, stream)
    return lost


def _named(image: dict[str, Any], name: str, size: tuple[int, int]) -> dict[str, Any]:
    given = zip(("height", "width"), size, strict=True)
    return image | {side: image.get(side) or length for side, length in given} | {"file_name": name}


def _completed(record: dict[str, Any], height: int, width: int) -> dict[str, Any]:
    added = {} if record.get("area") is not None else {"area": measured_area(record, height, width)}
    return {"iscrowd": 0} | record | added
