"""CVAT's own XML, version 1.1 for images or video: boxes, polygons, ellipses and masks, one file for all pictures."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from det_coco._describe import some
from det_coco.errors import DataError
from det_coco.formats.content import ContentBuilder, Segmentation, masked, numbered
from det_coco.formats.cvat_tracks import frames_of
from det_coco.formats.registry import ContentSplit, Format, register
from det_coco.formats.shapes import ellipse, rotated_rectangle
from det_coco.formats.xml import Node, number, outermost_tag, read_xml
from det_coco.rle import runs_to_bitmap

_OBJECTS = ("box", "polygon", "ellipse", "mask")


def splits(path: Path) -> Mapping[str, ContentSplit]:
    """Find the splits: CVAT's subsets.

    Args:
        path: the XML file, or the folder with `annotations.xml`, or several files, and the pictures.

    Returns:
        split name -> where and how it is read; without subsets the names of the files, `all` for annotations.xml.

    Raises:
        DataError: the file is no XML of CVAT's version 1.1, or its tracks cannot be read.
    """
    files = _files(path)
    sources: dict[str, ContentSplit] = {}
    for file in files:
        root = read_xml(file)
        images = [node for node in root.iterfind("image") if isinstance(node, Node)] + frames_of(file, root)
        names = [(label.findtext("name") or "").strip() for label in root.iterfind("meta//labels/label")]
        if not names:
            names = sorted({shape.get("label", "") for image in images for shape in image})
        images.sort(key=_subset)
        for subset, chosen in groupby(images, key=_subset):
            chosen = list(chosen)
            name = _split(subset or file.stem)
            folder = _image_folder(file.parent, subset, chosen)
            sources[name] = ContentSplit(source=file, image_folder=folder, read=partial(_read, file, names, chosen))
    return sources


def _files(path: Path) -> list[Path]:
    """The XML files of a folder, the one that CVAT writes alone where it is there; or the one that is named."""
    files = [path] if path.is_file() else [path / "annotations.xml"]
    if path.is_dir() and not files[0].is_file():
        files = sorted(path.glob("*.xml"))[:20]
    return [f for f in files if f.suffix == ".xml" and f.is_file() and outermost_tag(f) == "annotations"]


def _subset(image: Node) -> str:
    return image.get("subset") or ""


def _split(name: str) -> str:
    """Our name of a subset or file: CVAT proposes Train, Validation and Test, and calls its file annotations.xml."""
    known = {"annotations": "all", "default": "all", "train": "train", "validation": "val", "test": "test"}
    return known.get(name.lower(), name)


def _image_folder(root: Path, subset: str, images: Sequence[Node]) -> Path:
    name = images[0].get("name") or ""
    candidates = [folder for around in (root / "images", root) for folder in (around / subset, around)]
    return next((folder for folder in candidates if name and (folder / name).is_file()), root / "images")


def _read(file: Path, names: Sequence[str], images: Iterable[Node]) -> dict[str, Any]:
    builder = ContentBuilder(numbered(names))
    ids = {name: category_id for category_id, name in enumerate(names, start=1)}
    others: Counter[str] = Counter()
    for image in images:
        place = f"{file}, line {image.line}"
        if not image.get("name"):
            raise DataError(f"{place}: the image has no 'name'.")
        height, width = (int(number(place, side, image.get(side))) for side in ("height", "width"))
        image_id = builder.add_image(str(image.get("name")), (height, width))
        for shapes in _grouped(shape for shape in image if isinstance(shape, Node)):
            shape = shapes[0]
            if shape.tag not in _OBJECTS:
                others[shape.tag] += 1
                continue
            place = f"{file}, line {shape.line}"
            label = str(shape.get("label"))
            if label not in ids:
                raise DataError(f"{place}: there is no label '{some([label])}' (there are: {some(names)}).")
            box, segmentation = _geometry(file, shapes, height, width)
            more = {"attributes": attributes} if (attributes := _attributes(shape)) else {}
            place = f"line {shape.line}"
            builder.add_object(place, image_id, ids[label], box=box, segmentation=segmentation, **more)
    if others:
        what = some(f"{tag} ({count:,})" for tag, count in others.items())
        builder.remark("shape_left_out", f"shapes that are no objects for a detector are left out: {what}.")
    return builder.content()


def _grouped(shapes: Iterable[Node]) -> list[list[Node]]:
    """Put the parts of one object together: shapes of one label and one group, as in CVAT's export to COCO.

    A box in a group with outlines only says where these are.
    """
    groups: dict[tuple[Any, ...], list[Node]] = {}
    for place, shape in enumerate(shapes):
        alone = shape.get("group_id", "0") == "0" or shape.tag not in _OBJECTS
        key = (place,) if alone else (shape.get("group_id"), shape.get("label"))
        groups.setdefault(key, []).append(shape)
    objects = []
    for group in groups.values():
        outlines = [shape for shape in group if shape.tag != "box" or shape.get("rotation", "0").strip("0.")]
        objects += [outlines] if outlines else [[box] for box in group]
    return objects


def _geometry(file: Path, shapes: Sequence[Node], height: int, width: int) -> tuple[list[float], Segmentation | None]:
    """Box of an object, and its segmentation where it has one."""
    polygons, masks = [], []
    for shape in shapes:
        place = f"{file}, line {shape.line}"
        if shape.tag == "mask":
            masks.append(_mask(place, shape, height, width))
        elif shape.tag == "polygon":
            polygons.append(_points(place, shape.get("points")))
        elif shape.tag == "ellipse":
            x, y, radius_x, radius_y = (number(place, key, shape.get(key)) for key in ("cx", "cy", "rx", "ry"))
            turned = number(place, "rotation", shape.get("rotation", "0"))
            polygons.append(ellipse(x, y, radius_x, radius_y, turned))
        else:
            x1, y1, x2, y2 = (number(place, key, shape.get(key)) for key in ("xtl", "ytl", "xbr", "ybr"))
            turned = number(place, "rotation", shape.get("rotation", "0"))
            if not turned:
                return [x1, y1, x2 - x1, y2 - y1], None
            polygons.append(rotated_rectangle(x1, y1, x2, y2, turned))
    return masked(polygons, masks, height, width)


def _mask(place: str, shape: Node, height: int, width: int) -> np.ndarray:
    """Bitmap of a mask: run lengths row by row, zeros first, within a rectangle of the picture; `[h, w]`."""
    left, top, columns, rows = (int(number(place, key, shape.get(key))) for key in ("left", "top", "width", "height"))
    runs = [int(number(place, "rle", text)) for text in (shape.get("rle") or "").split(",")]
    inside = 0 <= left <= left + columns <= width and 0 <= top <= top + rows <= height
    if not inside or min(runs) < 0 or sum(runs) != rows * columns:
        raise DataError(
            f"{place}: the mask of {columns} x {rows} pixels at {left}, {top} has runs of {sum(runs)} pixels, in a "
            f"picture of {width} x {height}."
        )
    bitmap = np.zeros((height, width), dtype=np.uint8)
    bitmap[top : top + rows, left : left + columns] = runs_to_bitmap(np.array(runs), columns, rows).T
    return bitmap


def _points(place: str, text: str | None) -> list[float]:
    points = [part.split(",") for part in (text or "").split(";")]
    if len(points) < 3 or any(len(point) != 2 for point in points):
        raise DataError(f"{place}: 'points' must be 'x,y;x,y;x,y' or more, got '{some([text])}'.")
    return [number(place, "points", value) for point in points for value in point]


def _attributes(shape: Node) -> dict[str, Any]:
    named = {str(node.get("name")): (node.text or "").strip() for node in shape.iterfind("attribute")}
    return named | ({"occluded": True} if shape.get("occluded") == "1" else {})


register(Format(name="CVAT", recognises=lambda path: bool(_files(path)), splits=splits))
