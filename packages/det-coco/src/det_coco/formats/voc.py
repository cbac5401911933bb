"""Pascal VOC: an XML file for each picture, lists of names for each split, and masks as PNG files."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from det_coco._describe import counted, some
from det_coco.errors import DataError
from det_coco.formats.content import ContentBuilder, numbered
from det_coco.formats.registry import ContentSplit, Format, register
from det_coco.formats.text import read_lines
from det_coco.formats.voc_masks import object_masks
from det_coco.formats.xml import Node, number, outermost_tag, read_xml, text_of
from det_coco.images import image_size, picture_suffixes

_SIDES = ("xmin", "ymin", "xmax", "ymax")


def splits(path: Path) -> Mapping[str, ContentSplit]:
    """Find the splits: the lists in `ImageSets/Main`, else the folders that hold XML files.

    Args:
        path: folder of the data set; that of one year of VOC, or the one around several.

    Returns:
        split name -> where and how it is read; `all` where there is neither list nor folder.

    Raises:
        DataError: a list names what is not there.
    """
    roots = list(_roots(path))
    data = _DataSet(path, [file for _, folder in roots for file in sorted(folder.glob("*.xml"))])
    sources = {}
    for root, annotations in roots:
        lists = _lists(root)
        whole = "all" if root == path else root.name
        folder = next((root / name for name in ("JPEGImages", "images") if (root / name).is_dir()), root)
        chosen = {name: _listed(file, annotations, folder) for name, file in lists.items()}
        for name, files in (chosen or {whole: sorted(annotations.glob("*.xml"))}).items():
            read = partial(_read, data, root, files, folder)
            unique = f"{root.name}_{name}" if chosen and len(roots) > 1 else name
            sources[unique] = ContentSplit(source=annotations, image_folder=folder, read=read)
    return sources


@dataclass(frozen=True)
class _DataSet:
    """All XML files of a data set, which have their classes in common."""

    path: Path
    files: Sequence[Path]

    @cached_property
    def names(self) -> list[str]:
        """Class names: those of `labelmap.txt` where CVAT has written one, else all in the files by the alphabet."""
        labels = self.path / "labelmap.txt"
        if labels.is_file():
            lines = (line.split(":")[0].strip() for _, line in read_lines(labels))
            return [name for name in lines if name and name[0] != "#" and name != "background"]
        found = {text_of(_place(f, node), node, "name") for f in self.files for node in read_xml(f).findall("object")}
        return sorted(found)


def _roots(path: Path) -> Iterator[tuple[Path, Path]]:
    """Folders with XML files: the data set's own, else those in it; each with the folder of its XML files."""
    if not path.is_dir():
        return
    inside = [folder for around in (path, path / "VOCdevkit") if around.is_dir() for folder in sorted(around.iterdir())]
    for candidates in ([path], inside):
        found = False
        for root in candidates:
            for folder in (root / "Annotations", root):
                first = next(folder.glob("*.xml"), None) if folder.is_dir() else None
                if first is not None and outermost_tag(first) == "annotation":
                    yield root, folder
                    found = True
                    break
        if found:
            return


def _lists(root: Path) -> dict[str, Path]:
    """Split name -> list of the names of its pictures; lists of single classes have a second column."""
    folder = next((f for part in ("Main", "Segmentation", "") if (f := root / "ImageSets" / part).is_dir()), root)
    files = sorted(folder.glob("*.txt")) if folder != root else []
    return {f.stem: f for f in files if all(len(line.split()) == 1 for _, line in read_lines(f)[:20])}


def _listed(file: Path, annotations: Path, folder: Path) -> list[Path]:
    """XML files of the pictures in a list; one of a picture without objects may be missing."""
    stems = [line for _, line in read_lines(file)]
    present = {path.stem for path in folder.iterdir()}
    lost = [stem for stem in stems if stem not in present and not (annotations / f"{stem}.xml").is_file()]
    if lost:
        raise DataError(
            f"{file} names {some(lost)}, of which there is neither a picture nor an XML file ({len(lost)})."
        )
    return [annotations / f"{stem}.xml" for stem in stems]


def _read(data: _DataSet, root: Path, files: list[Path], folder: Path) -> dict[str, Any]:
    builder = ContentBuilder(numbered(data.names))
    ids = {name: category_id for category_id, name in enumerate(data.names, start=1)}
    nodes = {file: read_xml(file) if file.is_file() else Node("annotation") for file in files}
    bare = [file.stem for file in files if not file.is_file()]
    if bare:
        what = f"{counted(len(bare), 'picture')} without an XML file ({some(bare)})"
        builder.remark("label_file_missing", f"{what}, taken as pictures without objects.")
    first, reason = _first_pixel(nodes)
    builder.remark("voc_pixels" if first else "voc_distances", reason)
    pictures = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    for file, node in nodes.items():
        file_name = _picture(file, node, pictures)
        size = _size(file, node, folder / file_name)
        image_id = builder.add_image(file_name, size)
        objects = node.findall("object")
        boxes = [_box(file, item, first) for item in objects]
        masks = object_masks(root / "SegmentationObject" / f"{file.stem}.png", size, boxes)
        for place, (item, box, mask) in enumerate(zip(objects, boxes, masks, strict=True), start=1):
            name = f"{file.name}, object {place}"
            more = _marks(item) | ({} if mask is None else {"segmentation": mask})
            category = ids.get(text_of(_place(file, item), item, "name"))
            if category is None:
                raise DataError(f"{_place(file, item)}: labelmap.txt has no class '{item.findtext('name')}'.")
            builder.add_object(name, image_id, category, box=box, **more)
    return builder.content()


def _place(file: Path, node: Element) -> str:
    return f"{file}, line {node.line if isinstance(node, Node) else 0}"


def _first_pixel(nodes: Mapping[Path, Node]) -> tuple[int, str]:
    """Tell whether coordinates are numbers of pixels from 1, as VOC defines them, or distances from the edge.

    Returns:
        1 or 0, and the reason.
    """
    sources = {(node.findtext("source/database") or "VOC").strip() for node in nodes.values()}
    others = sorted(source for source in sources if "voc" not in source.lower())
    values = [number(_place(f, box), side, box.findtext(side))
              for f, node in nodes.items() for box in node.findall("object/bndbox") for side in _SIDES]  # fmt: skip
    if others:
        why = f"the files come from '{some(others[:1])}'"
    elif any(value < 1 or value != int(value) for value in values):
        why = "some are 0 or fractions"
    else:
        return 1, "coordinates are read as numbers of pixels from 1, the last one inside the box, as VOC defines them."
    return 0, f"coordinates are read as distances from the left and upper edge, not as VOC's numbers from 1: {why}."


def _picture(file: Path, node: Node, present: set[str]) -> str:
    named = (node.findtext("filename") or "").strip().replace("\\", "/").rsplit("/", 1)[-1]
    others = (file.stem + suffix for suffix in sorted(picture_suffixes()))
    return next((name for name in (named, *others) if name in present), named or f"{file.stem}.jpg")


def _size(file: Path, node: Node, picture: Path) -> tuple[int, int]:
    """(height, width) of a picture as its XML file says, or as it is where that says nothing."""
    texts = [node.findtext(f"size/{side}") for side in ("height", "width")]
    height, width = (int(number(_place(file, node), "size", text or "0")) for text in texts)
    return (height, width) if height > 0 and width > 0 else image_size(picture)


def _box(file: Path, item: Element, first: int) -> list[float]:
    box = item.find("bndbox")
    if box is None:
        raise DataError(f"{_place(file, item)}: the object has no <bndbox>.")
    x1, y1, x2, y2 = (number(_place(file, box), side, box.findtext(side)) for side in _SIDES)
    return [x1 - first, y1 - first, x2 - x1 + first, y2 - y1 + first]


def _marks(item: Element) -> dict[str, Any]:
    """What is said of an object: a difficult one is neither learnt nor to be found, as in VOC's evaluation."""
    flags = {tag: (item.findtext(tag) or "0").strip() in ("1", "true", "True") for tag in ("truncated", "occluded")}
    difficult = (item.findtext("difficult") or "0").strip() == "1"
    return ({"ignore": 1} if difficult else {}) | ({"attributes": flags} if any(flags.values()) else {})


register(Format(name="Pascal VOC", recognises=lambda path: any(_roots(path)), splits=splits))
