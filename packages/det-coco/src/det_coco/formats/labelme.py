"""labelme: a JSON file for each picture, which may hold the picture as well."""

import base64
import io
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from det_coco._describe import describe, some
from det_coco._json import read_json
from det_coco.errors import DataError
from det_coco.formats.content import ContentBuilder, common_folder, numbered
from det_coco.formats.labelme_shapes import Shape, geometry, read_shape
from det_coco.formats.registry import ContentSplit, Format, register
from det_coco.images import header_size, image_size, picture_suffixes

_SPLITS = ("train", "training", "val", "valid", "validation", "test")
_BEGINNING = re.compile(rb'\A(\xef\xbb\xbf)?\s*\{.*"shapes"\s*:', re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class _Picture:
    """What one JSON file says of its picture.

    Attributes:
        file: the JSON file.
        path: where the picture is, or would be.
        content: bytes of the picture file, where it is only in the JSON file.
        size: (height, width) in pixels.
        shapes: what was drawn.
    """

    file: Path
    path: Path
    content: bytes | None
    size: tuple[int, int]
    shapes: list[Shape]


def splits(path: Path) -> Mapping[str, ContentSplit]:
    """Find the splits: folders called train, val, ..., else all files together.

    Args:
        path: folder of the JSON files, at any depth, or one of them.

    Returns:
        split name -> where and how it is read; `all` where there are no such folders.

    Raises:
        DataError: a file is wrong.
    """
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*.json") if _is_labelme(file))
    pictures = [_picture(file) for file in files]
    names = sorted({shape.label for picture in pictures for shape in picture.shapes if shape.is_object})
    groups: dict[str, list[_Picture]] = {}
    for picture in pictures:
        groups.setdefault(next(iter(picture.file.relative_to(path).parts[:-1]), ""), []).append(picture)
    if not any(name.lower() in _SPLITS for name in groups):
        groups = {"all": pictures}
    sources = {}
    for name, chosen in groups.items():
        folder = common_folder([picture.path for picture in chosen])
        read = partial(_read, chosen, names, folder)
        sources[name or "all"] = ContentSplit(source=path / name if name else path, image_folder=folder, read=read)
    return sources


def _candidates(path: Path) -> Iterator[Path]:
    """Some files by which to tell the format, without going through all."""
    if path.is_file():
        yield path
    else:
        for pattern in ("*.json", "*/*.json", "*/*/*.json"):
            yield from islice(path.glob(pattern), 3)


def _is_labelme(file: Path) -> bool:
    if file.suffix != ".json":
        return False
    with file.open("rb") as stream:
        return _BEGINNING.match(stream.read(1 << 12)) is not None


def _picture(file: Path) -> _Picture:
    content = read_json(file)
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise DataError(f"{file} is no file of labelme: it has no list 'shapes'.")
    shapes = [read_shape(file, number, shape) for number, shape in enumerate(content["shapes"], start=1)]
    path, held = _find(file, content)
    height, width = content.get("imageHeight"), content.get("imageWidth")
    if not (isinstance(height, int) and isinstance(width, int) and min(height, width) > 0):
        height, width = image_size(path) if held is None else header_size(io.BytesIO(held))
    return _Picture(file=file, path=path, content=held, size=(height, width), shapes=shapes)


def _find(file: Path, content: Mapping[str, Any]) -> tuple[Path, bytes | None]:
    """Find the picture beside the file, under the name that it gives or its own; else within it."""
    named = content.get("imagePath")
    if not isinstance(named, str) or not named:
        raise DataError(f"{file}: 'imagePath' must be the name of a picture, got {describe(named)}.")
    plain = named.replace("\\", "/")
    stems = [file.stem + suffix for suffix in sorted(picture_suffixes())]
    for name in (plain, plain.rsplit("/", 1)[-1], *stems):
        path = Path(os.path.normpath(file.parent / name))
        if path.is_file():
            return path, None
    if not content.get("imageData"):
        raise DataError(f"{file}: there is no picture {named} beside it, and 'imageData' holds none.")
    try:
        held = base64.b64decode(content["imageData"], validate=True)
        header_size(io.BytesIO(held))
    except Exception:  # binascii and whatever Pillow raises for what is no picture
        raise DataError(
            f"{file}: 'imageData' holds no picture that can be read. Put {named} beside the file."
        ) from None
    return file.parent / plain.rsplit("/", 1)[-1], held


def _read(pictures: Sequence[_Picture], names: Sequence[str], folder: Path) -> dict[str, Any]:
    builder = ContentBuilder(numbered(names))
    others: Counter[str] = Counter()
    for picture in pictures:
        held = {} if picture.content is None else {"picture": picture.content}
        image_id = builder.add_image(picture.path.relative_to(folder).as_posix(), picture.size, **held)
        others.update(shape.kind for shape in picture.shapes if not shape.is_object)
        for parts in _grouped(picture.shapes):
            first = parts[0]
            box, segmentation = geometry(picture.file, parts, *picture.size)
            place, category_id = f"{picture.file.name}, shape {first.number}", names.index(first.label) + 1
            builder.add_object(place, image_id, category_id, box=box, segmentation=segmentation, **first.marks)
    if others:
        what = some(f"{kind} ({count:,})" for kind, count in others.items())
        builder.remark("shape_left_out", f"shapes that are no objects for a detector are left out: {what}.")
    return builder.content()


def _grouped(shapes: Sequence[Shape]) -> list[list[Shape]]:
    """Put the parts of one object together: shapes of one label and one group, as in labelme's converter to COCO."""
    objects: dict[tuple[Any, ...], list[Shape]] = {}
    for shape in shapes:
        if shape.is_object:
            key = (shape.number,) if shape.group is None else (shape.group, shape.label)
            objects.setdefault(key, []).append(shape)
    return list(objects.values())


register(Format(name="labelme", recognises=lambda path: any(map(_is_labelme, _candidates(path))), splits=splits))
