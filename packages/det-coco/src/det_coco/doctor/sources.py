"""From the splits of a data set, of whatever format, to their records."""

from typing import Any

from det_coco._coco_splits import Split
from det_coco.doctor.findings import Case
from det_coco.doctor.reading import read_records
from det_coco.doctor.records import Records, read_content
from det_coco.written_split import SplitSource, WrittenPart


def open_records(name: str, source: SplitSource) -> Records:
    """Read the records of a split.

    Args:
        name: of the split.
        source: what it is read from.

    Raises:
        DataError: its file cannot be read at all.
    """
    content = _content(source)
    remarks = content.pop("remarks", ())
    held = {
        n: row.pop("picture") for n, row in enumerate(content["images"]) if isinstance(row, dict) and "picture" in row
    }
    records = read_records(name, source.source, source.image_folder, content)
    records.is_coco = _is_coco(source)
    records.held.update(held)
    records.cases.extend(
        Case(kind="remark", detail=r.message.rstrip("."), annotation_ids=r.annotation_ids) for r in remarks
    )
    return records


def _is_coco(source: SplitSource) -> bool:
    return _is_coco(source.whole) if isinstance(source, WrittenPart) else isinstance(source, Split)


def _content(source: SplitSource) -> dict[str, Any]:
    """Content in COCO's JSON shape, of which single records may be wrong."""
    if isinstance(source, Split):
        return read_content(source.annotation_file)
    if isinstance(source, WrittenPart):
        return _part(_content(source.whole), source.file_names)
    return source.read()


def _part(content: dict[str, Any], file_names: frozenset[str]) -> dict[str, Any]:
    """The images of some names, with their annotations."""
    images = [row for row in content["images"] if isinstance(row, dict) and row.get("file_name") in file_names]
    ids = {repr(row.get("id")) for row in images}
    inside = [row for row in content["annotations"] if isinstance(row, dict) and repr(row.get("image_id")) in ids]
    return {**content, "images": images, "annotations": inside}
