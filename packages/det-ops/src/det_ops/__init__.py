"""Detection operators: one function each, static shapes, fast kernels per device."""

from det_ops.__about__ import __version__
from det_ops._kernels import kernels
from det_ops.box_coding import decode_boxes, encode_boxes
from det_ops.boxes import box_area, box_iou, clip_boxes, generalized_box_iou
from det_ops.matching import match
from det_ops.nms import batched_nms, nms
from det_ops.sampling import sample

__all__ = [
    "__version__",
    "batched_nms",
    "box_area",
    "box_iou",
    "clip_boxes",
    "decode_boxes",
    "encode_boxes",
    "generalized_box_iou",
    "kernels",
    "match",
    "nms",
    "sample",
]
