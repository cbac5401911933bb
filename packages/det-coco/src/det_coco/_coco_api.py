"""pycocotools without its type stubs, which deny what its documentation allows (lists of codes, results as a list)."""

from typing import Any

from pycocotools import coco, cocoeval, mask

COCO: Any = coco.COCO
COCOeval: Any = cocoeval.COCOeval
coco_mask: Any = mask
