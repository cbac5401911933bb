"""Converting data sets: any known format to COCO's JSON or YOLO."""

import argparse
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

from det_coco.annotations import CocoIndex, check_same_categories
from det_coco.errors import DataError
from det_coco.formats.write_coco import write_coco
from det_coco.formats.write_yolo import Parts, write_data_yaml, write_yolo
from det_coco.layout import SplitSource, find_splits
from det_coco.outputs import filled, try_folder

Target = Literal["coco", "yolo"]
Pictures = Literal["link", "copy", "none"]


def convert(args: Sequence[str] | None = None, prog: str = "python -m det_coco convert") -> None:
    """Convert a data set of any known format to COCO's JSON or YOLO.

    Args:
        args: of the command line, without the command's name.
        prog: what messages call the command.

    Raises:
        DataError: see `convert_data`.
    """
    parser = argparse.ArgumentParser(prog=prog, description="Convert a data set of any known format to COCO or YOLO.")
    parser.add_argument("source", type=Path, help="folder or file of the data set")
    parser.add_argument("out", type=Path, help="folder to write; it must be empty or new")
    parser.add_argument("--to", choices=get_args(Target), required=True, help="format to write")
    parser.add_argument("--split", action="append", help="split to convert, again for another (default: all)")
    parts = parser.add_mutually_exclusive_group()
    parts.add_argument("--masks", action="store_true", help="with --to yolo: outlines of masks instead of boxes")
    parts.add_argument("--keypoints", action="store_true", help="with --to yolo: keypoints beside boxes")
    parser.add_argument(
        "--pictures", choices=get_args(Pictures), default="link", help="how pictures get there (default: %(default)s)"
    )
    options = parser.parse_args(args)
    sources = find_splits(options.source, keypoints=options.keypoints)
    for split in options.split or ():
        if split not in sources:
            raise DataError(f"{options.source} has no split '{split}' for --split (it has: {', '.join(sources)}).")
    chosen = {name: sources[name] for name in options.split or sources}
    parts = "masks" if options.masks else "keypoints" if options.keypoints else "boxes"
    lost = convert_data(chosen, options.out, to=options.to, parts=parts, pictures=options.pictures)
    for name in chosen:
        written = f"annotations/instances_{name}.json" if options.to == "coco" else f"labels/{name}"
        print(f"{name}: {options.out / written}")
    if lost:
        print("Not kept:")
    for what, count in lost.items():
        print(f"{count:>9,} {what}")


def convert_data(
    sources: Mapping[str, SplitSource],
    out: str | Path,
    *,
    to: Target,
    parts: Parts = "boxes",
    pictures: Pictures = "link",
) -> Counter[str]:
    """Write splits as a data set in the COCO 2017 layout or in Ultralytics' of YOLO.

    All splits are read and checked before anything is written.

    Args:
        sources: split name -> where and how it is read.
        out: folder to write.
        to: `coco` keeps all that the source says, `yolo` what `parts` names.
        parts: what YOLO's files get of an object: its box, the outline of its mask, or its box and its keypoints.
        pictures: `link` makes symbolic links, `copy` copies, `none` writes the annotations alone.

    Returns:
        how many things of each kind could not be kept, by their description.

    Raises:
        DataError: `out` is not empty or cannot be written, a split is wrong or has no keypoints to write, or splits
            that become YOLO differ in their categories.
    """
    out = Path(out)
    try_folder(out, "Nothing is written over: name a new folder.")
    indices = {name: source.load(require_objects=False) for name, source in sources.items()}
    first = next(iter(indices.values()))
    for index in indices.values() if to == "coco" else ():
        _refuse_other_forms(index)
    for index in indices.values() if to == "yolo" else ():  # which has one list of classes and keypoints for all
        check_same_categories(first, index)
        if parts == "keypoints" and index.skeleton is None:
            raise DataError(f"{index.annotation_file} has no keypoints to write.")
    lost: Counter[str] = Counter()
    with filled(out):
        for name, index in indices.items():
            if to == "coco":
                placed = [_inside(file_name) for file_name in index.file_names.tolist()]
                ids, sides = index.image_ids.tolist(), zip(index.heights.tolist(), index.widths.tolist(), strict=True)
                names, sizes = dict(zip(ids, placed, strict=True)), dict(zip(ids, sides, strict=True))
                lost += write_coco(sources[name].read(), names, sizes, out, name)
            else:
                placed = _distinct(index)
                lost += write_yolo(index, placed, out, name, parts=parts)
            if pictures != "none":
                folder = out / name if to == "coco" else out / "images" / name
                _place(index, placed, folder, pictures)
        if to == "yolo":
            write_data_yaml(first, indices, out, parts=parts)
    return lost


def _refuse_other_forms(index: CocoIndex) -> None:
    """Refuse a source that is read as what it is not, since COCO's JSON is written as the source has it."""
    for remark in index.remarks:
        if remark.kind == "form":
            raise DataError(
                f"{index.annotation_file}: {remark.message} What is written would have them as they are. "
                "Check the data with --fix NEW_FOLDER first, which mends them, and convert that folder."
            )


def _inside(file_name: str) -> str:
    """Name of a picture below the folder that it is written to."""
    parts = [part for part in PurePosixPath(file_name).parts if part not in ("..", "/")]
    return "/".join(parts)


def _distinct(index: CocoIndex) -> list[str]:
    """Names without folders that differ without their suffix too, as label files are named after pictures."""
    taken: set[str] = set()
    names = []
    for file_name in index.file_names.tolist():
        path = PurePosixPath(_inside(file_name))
        stem, number = path.stem, 1
        while stem in taken:
            number += 1
            stem = f"{path.stem}_{number}"
        taken.add(stem)
        names.append(stem + path.suffix)
    return names


def _place(index: CocoIndex, names: Sequence[str], folder: Path, how: Pictures) -> None:
    for position, name in enumerate(names):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        held = None if index.pictures is None else index.pictures.file(position)
        if held is not None:
            target.write_bytes(held)
        elif how == "link":
            _link(target, index.path(position).resolve())
        else:
            shutil.copyfile(index.path(position), target)


def _link(target: Path, picture: Path) -> None:
    try:
        target.symlink_to(picture)
    except OSError as error:
        raise DataError(
            f"{target} cannot be made a link to {picture}: {error.strerror}. Have pictures copied instead."
        ) from None
