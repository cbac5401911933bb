"""Checks of the pictures: there, readable, of the right size, as they are meant."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from det_coco._find_pictures import other_name
from det_coco.doctor.findings import Case, Change, replace
from det_coco.doctor.inspection import Seen, annotated_size
from det_coco.doctor.records import Records

_BLANK = 2
"""Values a picture of one colour spans at most; JPEG makes one of them two."""
_SMALL = 32
"""Pixels of a side that the coarsest level of a pyramid (stride 32) sees as one cell."""
_SAME_FORMAT = {"MPO": "JPEG", "JPEG2000": "JPEG2000"}


def locate(records: Records) -> list[str]:
    """Find the pictures of a split, also under names that do not quite fit.

    Returns:
        I paths; an empty text where a picture is missing. Those of pictures in memory are names alone.
    """
    present = {entry.name for entry in records.folder.iterdir()} if records.folder.is_dir() else set()
    found = [name if name in present else other_name(records.folder, name) for name in records.file_names]
    held = {int(row) for row in records.held}
    return [
        str(records.folder / (name or other)) if name is not None or row in held else ""
        for name, other, row in zip(found, records.file_names, records.image_rows.tolist(), strict=True)
    ]


def check_files(records: Records, seen: list[Seen], paths: list[str]) -> Iterator[Case]:
    """Check each picture.

    Args:
        records: the split.
        seen: I pictures as they are.
        paths: I paths, from `locate`.
    """
    for position, (picture, path) in enumerate(zip(seen, paths, strict=True)):
        name = records.file_names[position]
        fix = records.drop_image(position)
        if not path:
            yield _case(records, position, "missing_picture", f"{name} is not in {records.folder}", *fix)
            continue
        given = records.content["images"][records.image_rows[position]]
        if path != str(records.folder / name) and "file_name" in given:
            found = Path(path).relative_to(records.folder).as_posix() if ".." not in path else path
            renamed = replace(found, "images", int(records.image_rows[position]), "file_name")
            yield _case(records, position, "misnamed_picture", f"{name} is called {found}", renamed)
        if picture.error:
            yield _case(records, position, "unreadable_picture", f"{name} {picture.error}", *fix)
            continue
        yield from _check_size(records, position, picture)
        yield from _check_pixels(records, position, picture, path)
    yield from _check_grey(records, seen)


def annotated_sizes(records: Records, seen: list[Seen]) -> np.ndarray:
    """Sizes that annotations go by: int64 `[I, 2]` height, width; 0 where unknown."""
    said = [(height, width) for height, width in records.sizes.tolist()]
    sizes = [annotated_size(size, picture.size, picture.orientation) for size, picture in zip(said, seen, strict=True)]
    return np.array(sizes, dtype=np.int64).reshape(-1, 2)


def unlisted(folder: Path, used: set[Path]) -> list[str]:
    """Name the pictures of a folder that no image of any split is read from.

    Args:
        folder: where to look, not below its first level.
        used: resolved paths of the pictures that are read.
    """
    if not folder.is_dir():
        return []
    suffixes = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    files = (file for file in folder.iterdir() if file.suffix.lower() in suffixes and file.name[0] != ".")
    return sorted(file.name for file in files if file.resolve() not in used)


def _case(records: Records, position: int, kind: str, detail: str, *fix: Change) -> Case:
    lost = any(change["op"] == "remove" for change in fix)
    ids = tuple(records.ids[n] for n in np.flatnonzero(records.image == position)) if lost else ()
    return Case(kind=kind, detail=detail, files=(records.file_names[position],), annotation_ids=ids, fix=fix)


def _check_size(records: Records, position: int, picture: Seen) -> Iterator[Case]:
    said, name = tuple(records.sizes[position].tolist()), records.file_names[position]
    (height, width), row = picture.size, int(records.image_rows[position])
    fix = (replace(height, "images", row, "height"), replace(width, "images", row, "width"))
    pixels = f"{name} is {width} x {height} pixels"
    if not all(said):
        yield _case(records, position, "missing_size", f"{pixels}, the file does not say it", *fix)
    elif said == picture.size[::-1] and said != picture.size:
        if picture.orientation >= 5:
            turned = f"{pixels} when it is turned upright as its EXIF orientation {picture.orientation} says, the file"
            yield _case(records, position, "exif_rotated", f"{turned} says {said[1]} x {said[0]}")
        else:
            yield _case(records, position, "swapped_size", f"{pixels}, the file says {said[1]} x {said[0]}", *fix)
    elif said != picture.size:
        # Boxes that do not fit into the picture were drawn on it at another size, so its size alone mends nothing.
        corners = records.boxes[records.image == position]
        fits = not (corners[:, :2] + corners[:, 2:] > [width + 1, height + 1]).any()
        detail = f"{pixels} (width x height), the file says {said[1]} x {said[0]}"
        yield _case(records, position, "wrong_size", detail, *(fix if fits else ()))


def _check_pixels(records: Records, position: int, picture: Seen, path: str) -> Iterator[Case]:
    name, (height, width) = records.file_names[position], picture.size
    if picture.spread <= _BLANK:
        yield _case(records, position, "blank_picture", f"{name} has one colour")
    if picture.mode == "F" or picture.mode.startswith("I"):
        yield _case(records, position, "bit_depth", f"{name} has pixels of mode {picture.mode}")
    if picture.transparent:
        yield _case(records, position, "transparent_picture", f"{name} has transparent pixels")
    if picture.frames > 1 and picture.format != "MPO":
        yield _case(records, position, "animated_picture", f"{name} has {picture.frames} frames")
    if min(height, width) < _SMALL:
        yield _case(records, position, "small_picture", f"{name} is {width} x {height} pixels")
    named = Image.registered_extensions().get(Path(path).suffix.lower())
    if named is not None and named != _SAME_FORMAT.get(picture.format, picture.format):
        yield _case(records, position, "wrong_suffix", f"{name} is in the format {picture.format}")


def _check_grey(records: Records, seen: list[Seen]) -> Iterator[Case]:
    read = [n for n, picture in enumerate(seen) if not picture.error]
    grey = [n for n in read if seen[n].grey]
    if len(grey) * 2 < len(read):  # else they are the usual
        for position in grey:
            yield _case(records, position, "grey_picture", f"{records.file_names[position]} is grey")
