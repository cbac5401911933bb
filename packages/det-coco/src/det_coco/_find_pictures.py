"""Where the pictures of an annotation file lie, also where their names do not fit the folder."""

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import numpy as np

from det_coco._describe import counted, some
from det_coco.errors import DataError
from det_coco.remarks import Remark

# Folders and files looked at where none of the usual places has the pictures.
_MOST_SEARCHED = 200_000


def picture_folder(names: Sequence[str], folders: Sequence[Path], root: Path, passed: Callable[[str], bool]) -> Path:
    """Choose the folder that has most of some pictures.

    Args:
        names: file names, as the annotation file has them.
        folders: where pictures may be, likeliest first.
        root: searched to its depth where none of the folders has any.
        passed: tells which folders the search leaves out by their names.

    Returns:
        the folder; the first one where nothing is found.
    """
    # A picture under its very name tells more than one under a part of it.
    scores = [
        sum(((found := other_name(folder, name)) is not None) + (found == name) for name in names) for folder in folders
    ]
    if max(scores, default=0):
        return folders[scores.index(max(scores))]
    return next(_folders_with(names, root, passed), folders[0])


def find_pictures(
    file: Path, folder: Path, names: np.ndarray, image_ids: np.ndarray, remarks: list[Remark]
) -> np.ndarray:
    """Look for every picture, also where exporters leave names that do not fit the folder.

    Args:
        file: named in messages.
        folder: image folder.
        names: `[I]` file names.
        image_ids: `[I]`.
        remarks: gets one about names that do not fit.

    Returns:
        `[I]` names under which the pictures lie, relative to the folder.

    Raises:
        DataError: pictures are missing, or two images would share one.
    """
    if not folder.is_dir():
        raise DataError(f"The image folder {folder} of {file} does not exist.")
    with os.scandir(folder) as entries:
        present = {entry.name for entry in entries if entry.is_file()}
    wanted = names.tolist()
    if present.issuperset(wanted):
        return names
    found = [name if name in present else other_name(folder, name) for name in wanted]
    if None in found:
        alike = _by_key(present, _spelling)
        found = [other or alike.get(_spelling(name)) for name, other in zip(wanted, found, strict=True)]
    missing = [name for name, other in zip(wanted, found, strict=True) if other is None]
    if missing:
        endings = _by_key(present, _stem)
        near = next((f"{some([name])} may be {endings[_stem(name)]}" for name in missing if _stem(name) in endings), "")
        raise DataError(
            f"{len(missing)} of the {counted(len(names), 'image')} of {file} {'is' if len(missing) == 1 else 'are'} "
            f"missing from {folder} ({some(missing)}). "
            + (
                f"Correct their 'file_name': {near}."
                if near
                else "Add them, or remove their entries from the annotation file."
            )
        )
    moved = [(name, str(other)) for name, other in zip(wanted, found, strict=True) if name != other]
    if moved:
        name, other = moved[0]
        message = (
            f"'file_name' is not what the picture is called for {counted(len(moved), 'image')}: {some([name])} is read "
            f"as {some([other])}."
        )
        remarks.append(Remark("file_name", message, image_ids=tuple(image_ids[np.array(found) != names].tolist())))
        paths = Counter(map(str, found))
        twice = [name for name, other in moved if paths[other] > 1]
        if twice:
            raise DataError(
                f"{file}: several images would be read from one picture of {folder} ({some(twice)}), because the "
                "folders in their 'file_name' are not there. Restore the folders, or give the pictures different names."
            )
    return np.array(found, dtype=np.str_)


def other_name(folder: Path, name: str) -> str | None:
    """Find a picture under its name, or else with other slashes, decoded, by its last parts, or beside the folder.

    Names that lead elsewhere (absolute ones, or with `..`) are never followed; their last parts are looked for.

    Args:
        folder: image folder.
        name: file name in an annotation file; may be a path or an address.

    Returns:
        the name under which it lies, relative to the folder; None where it is not there.
    """
    parts = _parts(name)
    literal = [] if name.startswith("/") or ".." in name.replace("\\", "/").split("/") else [name]
    # The whole name before its last parts: folders tell pictures of one name apart.
    ends = ["/".join(parts[start:]) for start in range(len(parts))]
    for candidate in (*literal, *ends[:1], *(f"../{end}" for end in ends[:1] if len(parts) > 1), *ends[1:]):
        try:
            if (folder / candidate).is_file():
                return candidate
        except (OSError, ValueError):  # Too long for a name, or with a zero byte.
            continue
    return None


def _by_key(present: Iterable[str], key: Callable[[str], str]) -> dict[str, str]:
    """Names by what they have in common with others, without those of which several have it."""
    times = Counter(map(key, present))
    return {key(name): name for name in present if times[key(name)] == 1}


def _spelling(name: str) -> str:
    """What is left of a name where letters may be small or large, and accents composed (Linux) or not (macOS)."""
    return unicodedata.normalize("NFC", next(reversed(_parts(name)), "")).casefold().strip()


def _stem(name: str) -> str:
    return PurePosixPath(_spelling(name)).stem


def stays_inside(folder: Path, name: str) -> bool:
    """Tell whether a file name stays in the data folder, the one that the image folder lies in.

    Args:
        folder: image folder.
        name: relative to it. Links are not followed: what the user has linked is meant to be read.
    """
    if not name.startswith(("/", "\\")) and ".." not in name and ":" not in name:
        return True
    root = Path(os.path.normpath(folder.absolute())).parent
    return Path(os.path.normpath(folder.absolute() / name)).is_relative_to(root)


def _parts(name: str) -> list[str]:
    """Folders and file that a name or an address consists of, decoded, without those that lead upwards."""
    plain = unquote(urlsplit(name).path) if "://" in name else unquote(name)
    return [part for part in plain.replace("\\", "/").split("/") if part not in ("", ".", "..")]


def _folders_with(names: Sequence[str], root: Path, passed: Callable[[str], bool]) -> Iterator[Path]:
    """Folders anywhere below a folder from which the pictures can be found by the longest part of their names."""
    lasts = {parts[-1]: parts for name in names if (parts := _parts(name))}
    searched = 0
    for folder, inside, files in os.walk(root):
        inside[:] = sorted(name for name in inside if not passed(name))
        searched += 1 + len(files)
        if searched > _MOST_SEARCHED:
            return
        for last in lasts.keys() & set(files):
            below = (Path(folder) / last).relative_to(root).parts
            pairs = zip(reversed(below), reversed(lasts[last]), strict=False)
            common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            yield root.joinpath(*below[: len(below) - common])
