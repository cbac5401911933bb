"""What a JSON file is, by its form: an annotation file, or one of its relatives that hold no objects to learn from."""

import json
import re
from itertools import islice
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

_HEAD = 1 << 16
_LIST = re.compile(r"\s*\[\s*\{")
_TOKEN = re.compile(r'"((?:[^"\\]|\\.)*)"(\s*:)?|[{}\[\]]')


def may_be_annotations(file: Path) -> bool:
    """Tell by the first 64 KiB whether a file may be a COCO annotation file.

    Args:
        file: a JSON file.

    Returns:
        whether it is an object with a list of images or annotations, as far as that can be seen there.
    """
    try:
        with file.open("rb") as opened:
            data = opened.read(_HEAD)
    except OSError:
        return False
    head = data.decode(json.detect_encoding(data), errors="replace").lstrip()
    return head.startswith("{") and not {"images", "annotations"}.isdisjoint(_lists_of_objects(head))


def other_kind(file: Path) -> str | None:
    """Name a file that is no COCO annotation file but can be mistaken for one.

    Args:
        file: a file that could not be read as annotations.

    Returns:
        what it is and what to do, as a part of a sentence after "is"; None where its form is none that is known.
    """
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if isinstance(content, list):
        return _kind_of_list(content)
    return _kind_of_object(content) if isinstance(content, dict) else None


def _lists_of_objects(head: str) -> set[str]:
    """Keys of the outermost object that have a list of objects, in the part of it that is there."""
    keys, depth = set(), 0
    for token in _TOKEN.finditer(head):
        text = token.group()
        if text[0] == '"':
            if depth == 1 and token.group(2) and _LIST.match(head, token.end()):
                keys.add(token.group(1))
        else:
            depth += 1 if text in "{[" else -1
    return keys


def _kind_of_list(rows: list[Any]) -> str | None:
    first = _first(rows)
    if "image_id" in first and "caption" in first:
        return "a file of captions, which have no boxes. Give a file of instances"
    if "image_id" in first and ("score" in first or "bbox" in first):
        return (
            "a results file: rows that a detector found, not the truth. Give the annotation file of the images; "
            "results are compared with it by det_coco.evaluate"
        )
    if "annotations" in first and ("data" in first or "completed_by" in str(first["annotations"])[:1000]):
        return "Label Studio's own JSON. Export the project as COCO"
    if "image" in first and "annotations" in first:
        return "a CreateML file. Export the data set as COCO"
    return None


def _kind_of_object(content: dict[str, Any]) -> str | None:
    annotation = _first(content.get("annotations"))
    if "segments_info" in annotation:
        return (
            "a panoptic file: each of its annotations is a picture of segments, not an object. Give the file of "
            "instances of the same images (instances_<split>.json)"
        )
    if "caption" in annotation:
        return "a file of captions, which have no boxes. Give a file of instances (instances_<split>.json)"
    if "question" in annotation or "answers" in annotation:
        return "a file of questions or answers, which have no boxes. Give a file of instances"
    if "videos" in content:
        return "a file of video instances (as YouTube-VIS, TAO). Write its frames as images"
    if "_via_img_metadata" in content or "regions" in _first(list(islice(content.values(), 1))):
        return "a project of the VGG Image Annotator. Export its annotations as COCO"
    if "shapes" in content and "imagePath" in content:
        return "labelme's file of one picture. Give the folder of all of them"
    if content.get("type") == "FeatureCollection":
        return "GeoJSON, whose coordinates are no pixels. Convert it to COCO"
    if "items" in content and "categories" in content:
        return "Datumaro's own JSON. Export the data set as coco_instances"
    return None


def _first(records: Any) -> dict[str, Any]:
    return records[0] if isinstance(records, list) and records and isinstance(records[0], dict) else {}


def file_names_in(file: Path, count: int = 16) -> list[str]:
    """Read the first file names (or addresses) of a JSON file without reading it whole.

    Args:
        file: an annotation file.
        count: the most names.

    Returns:
        names as they are in the file, none where it has none or cannot be read.
    """
    try:
        with file.open("rb") as opened, mmap(opened.fileno(), 0, access=ACCESS_READ) as text:
            for key in (b"file_name", b"coco_url"):
                pattern = re.compile(rb'"%s"\s*:\s*("(?:[^"\\]|\\.)*")' % key)
                names = [json.loads(match.group(1)) for match in islice(pattern.finditer(text), count)]
                if names:
                    return names
    except (OSError, ValueError):
        pass
    return []
