"""Where the pictures of a data set lie, also where exporters leave names that do not fit the folder."""

import os
from collections import Counter
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np

from det_coco._describe import counted, some
from det_coco.errors import DataError
from det_coco.remarks import Remark


def stays_inside(folder: Path, name: str) -> bool:
    """Tell whether a file name stays in the data folder, which is the one that the image folder lies in.

    Args:
        folder: image folder.
        name: as in the annotation file. Links are not followed: what the user has linked is meant to be read.
    """
    if not name.startswith(("/", "\\")) and ".." not in name and ":" not in name:
        return True
    root = Path(os.path.normpath(folder.absolute())).parent
    return Path(os.path.normpath(folder.absolute() / name)).is_relative_to(root)


def find_pictures(
    file: Path, folder: Path, names: np.ndarray, image_ids: np.ndarray
) -> tuple[np.ndarray, list[Remark]]:
    """Look for every picture.

    Args:
        file: the annotation file, named in messages.
        folder: image folder.
        names: `[I]` file names.
        image_ids: `[I]`.

    Returns:
        `[I]` names under which the pictures lie, relative to the folder, and a remark about those that are others.

    Raises:
        DataError: pictures are missing, or two images would share one.
    """
    if not folder.is_dir():
        raise DataError(f"The image folder {folder} of {file} does not exist.")
    with os.scandir(folder) as entries:
        present = {entry.name for entry in entries if entry.is_file()}
    given = names.tolist()
    if present.issuperset(given):
        return names, []
    found = [name if name in present else _other_name(folder, name) for name in given]
    missing = [name for name, other in zip(given, found, strict=True) if other is None]
    if missing:
        outside = [name for name in missing if not stays_inside(folder, name)]
        advice = "Add them, or remove their entries from the annotation file."
        if outside:
            advice = f"The names of {len(outside)} lead out of the data folder. Put the pictures into it. " + advice
        raise DataError(
            f"{len(missing)} of the {len(given)} images of {file} are missing from {folder} ({some(missing)}). {advice}"
        )
    moved = [(name, str(other)) for name, other in zip(given, found, strict=True) if name != other]
    if not moved:
        return names, []
    paths = Counter(found)
    twice = [name for name, other in moved if paths[other] > 1]
    if twice:
        raise DataError(
            f"{file}: several images would be read from one picture of {folder} ({some(twice)}), because the "
            "folders in their 'file_name' are not there. Restore the folders, or give the pictures different names."
        )
    others = np.array(found, dtype=np.str_)
    message = (
        f"'file_name' is not what the picture is called for {counted(len(moved), 'image')}: {some([moved[0][0]])} is "
        f"read as {some([moved[0][1]])}."
    )
    return others, [Remark("file_name", message, image_ids=tuple(image_ids[others != names].tolist()))]


def _other_name(folder: Path, name: str) -> str | None:
    """Find a picture under its name, or else with other slashes, decoded, beside the folder, or by its last part."""
    plain = unquote(urlsplit(name).path if "://" in name else name).replace("\\", "/")
    last = plain.rsplit("/", 1)[-1]
    for candidate in (name, name.replace("\\", "/"), plain, f"../{plain}", last):
        try:
            if last and stays_inside(folder, candidate) and (folder / candidate).is_file():
                return candidate
        except (OSError, ValueError):  # Too long for a name, or with a zero byte.
            continue
    return None
