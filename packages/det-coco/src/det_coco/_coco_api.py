"""pycocotools and hotcoco without type stubs, which deny what their documentation allows (lists of codes and so on)."""

from importlib import import_module
from typing import Any

from pycocotools import coco, cocoeval, mask

COCO: Any = coco.COCO
COCOeval: Any = cocoeval.COCOeval
coco_mask: Any = mask

hotcoco: Any
try:
    hotcoco = import_module("hotcoco")
except ImportError:  # a platform that it has no wheel for
    hotcoco = None
