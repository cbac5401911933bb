"""Other formats than COCO's JSON: readers, each of which gives COCO's JSON shape, and writers."""

from det_coco.formats import yolo as yolo  # registers itself
from det_coco.formats.registry import Format, SplitSource, find, register

__all__ = ["Format", "SplitSource", "find", "register"]
