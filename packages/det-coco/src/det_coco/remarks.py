"""What a reader had to interpret on the way from a file to an index."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

_log = logging.getLogger("det_coco")
_said: WeakKeyDictionary[object, set[str]] = WeakKeyDictionary()

# Usual in files that are right: worth a line to those who ask for it.
_QUIET = frozenset({"area_missing", "picture_address", "voc_pixels"})


@dataclass(frozen=True, slots=True)
class Remark:
    """Something in a file that was interpreted, dropped, clipped or measured.

    Attributes:
        kind: what it is, for programs: `box_dropped`, `box_clipped`, `object_ignored`, `crowd_share`, `area_wrong`,
            `area_missing`, `file_name`, `keypoint_count`, `skeletons_differ`, ...
        message: one or more whole sentences, without the file's name.
        annotation_ids: the annotations that it is about, as in the file.
        image_ids: the images that it is about, as in the file.
    """

    kind: str
    message: str
    annotation_ids: tuple[int, ...] = ()
    image_ids: tuple[int, ...] = ()


def say_once(about: object, kind: str, message: str) -> None:
    """Log a warning, unless one of its kind was logged about the same object.

    Boxes, masks and a report are one evaluation to whoever reads what is said of it.

    Args:
        about: what it is about.
        kind: of the message.
        message: one or more whole sentences.
    """
    said = _said.setdefault(about, set())
    if kind not in said:
        said.add(kind)
        _log.warning("%s", message)


def log_remarks(file: Path, remarks: Iterable[Remark]) -> None:
    """Log what a reader had to interpret, a line for each remark.

    Args:
        file: what was read.
        remarks: of its reader.
    """
    for remark in remarks:
        _log.log(logging.INFO if remark.kind in _QUIET else logging.WARNING, "%s: %s", file, remark.message)
