"""Images of an annotation file without height and width, as Label Studio exports some: those of the pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from det_coco._describe import counted, some
from det_coco._find_pictures import find_pictures
from det_coco.errors import DataError
from det_coco.images import image_sizes
from det_coco.lvis import named_by_address
from det_coco.remarks import Remark


class MissingSizesError(DataError):
    """Images have no height or width, which only their pictures know."""


def refuse_missing_sizes(file: Path, records: Sequence[Any]) -> None:
    """Refuse images whose height or width is missing, null or 0.

    Args:
        file: named in the message.
        records: of the images.

    Raises:
        MissingSizesError: there are such images.
    """
    lacking = [record for record in records if _lacks_size(record)]
    if lacking:
        which = f"{counted(len(lacking), 'image')} ({some(record.get('id') for record in lacking)})"
        raise MissingSizesError(f"{file} has no height or no width for {which}. Write those of the pictures.")


def sizes_from_pictures(file: Path, folder: Path, content: dict[str, Any]) -> Remark:
    """Write heights and widths that are missing into the records of images.

    Args:
        file: named in messages.
        folder: where the pictures are.
        content: of the file; its images are changed.

    Returns:
        a remark that says so.

    Raises:
        DataError: pictures are missing too, or cannot be read.
    """
    lacking = [n for n, record in enumerate(content["images"]) if _lacks_size(record)]
    records = [named_by_address(content["images"][n]) for n in lacking]
    names, ids = np.array([r["file_name"] for r in records], dtype=np.str_), np.arange(len(records))
    try:
        found = find_pictures(file, folder, names, ids, [])
        sizes = image_sizes([folder / name for name in found.tolist()])
    except DataError as error:
        raise DataError(f"{error} The file has no height and width for them, which the pictures would tell.") from None
    for n, record, (height, width) in zip(lacking, records, sizes, strict=True):
        content["images"][n] = record | {"height": height, "width": width}
    which = some(record.get("id") for record in records)
    message = f"took the height and width of {counted(len(lacking), 'image')} without them from the pictures ({which})."
    return Remark("size_missing", message)


def _lacks_size(record: Any) -> bool:
    """Whether a picture that has a name has no size."""
    if not isinstance(record, dict) or not isinstance(named_by_address(record).get("file_name"), str):
        return False
    return any(record.get(side) in (None, 0) and record.get(side) is not False for side in ("height", "width"))
