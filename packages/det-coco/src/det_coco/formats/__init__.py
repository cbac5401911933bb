"""Other formats than COCO's JSON: readers, each of which gives COCO's JSON shape, and writers."""

from det_coco.formats import cvat, labelme, voc, yolo  # noqa: F401 (they register themselves)
from det_coco.formats.content import ContentBuilder, numbered
from det_coco.formats.registry import ContentSplit, Format, find, register

__all__ = ["ContentBuilder", "ContentSplit", "Format", "find", "numbered", "register"]
