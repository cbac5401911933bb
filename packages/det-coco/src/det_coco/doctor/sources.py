"""From the splits of a data set, of whatever format, to their records."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from det_coco._coco_splits import Split
from det_coco.doctor.findings import Case
from det_coco.doctor.reading import read_records
from det_coco.doctor.records import Records, read_content
from det_coco.errors import DataError
from det_coco.formats import registry
from det_coco.layout import find_splits
from det_coco.written_split import SplitSource, WrittenPart


def sources_of(root: str | Path, *, keypoints: bool = False) -> Mapping[str, Any]:
    """Find the splits of a data set of any known format.

    Args:
        root: folder or file.
        keypoints: as for `find_splits`.

    Returns:
        split name -> what it is read from.

    Raises:
        DataError: there is no data set.
    """
    found = registry.find(root)
    return found.splits(Path(root)) if found else find_splits(root, keypoints=keypoints)


def open_records(name: str, source: Any) -> Records:
    """Read the records of a split.

    Args:
        name: of the split.
        source: a value of `sources_of`.

    Raises:
        DataError: its file cannot be read at all.
    """
    file, folder, content = _content(source)
    remarks = content.pop("remarks", ())
    held = {
        n: row.pop("picture") for n, row in enumerate(content["images"]) if isinstance(row, dict) and "picture" in row
    }
    records = read_records(name, file, folder, content)
    records.held.update(held)
    records.cases.extend(
        Case(kind="remark", detail=r.message.rstrip("."), annotation_ids=r.annotation_ids) for r in remarks
    )
    return records


def _content(source: SplitSource | registry.SplitSource) -> tuple[Path, Path, dict[str, Any]]:
    """File that messages name, folder of the pictures, and content in COCO's JSON shape."""
    if isinstance(source, registry.SplitSource):
        return source.source, source.image_folder, source.read()
    if isinstance(source, Split):
        return source.annotation_file, source.image_folder, read_content(source.annotation_file)
    if isinstance(source, WrittenPart):
        file, folder, content = _content(source.whole)
        return file, folder, _part(content, source.file_names)
    raise DataError(f"The check does not know how to read splits of type {type(source).__name__}.")


def _part(content: dict[str, Any], file_names: frozenset[str]) -> dict[str, Any]:
    """The images of some names, with their annotations."""
    images = [row for row in content["images"] if isinstance(row, dict) and row.get("file_name") in file_names]
    ids = {repr(row.get("id")) for row in images}
    inside = [row for row in content["annotations"] if isinstance(row, dict) and repr(row.get("image_id")) in ids]
    return {**content, "images": images, "annotations": inside}
