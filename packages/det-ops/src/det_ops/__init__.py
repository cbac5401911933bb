"""Detection operators: one function each, static shapes, fast kernels per device."""

import det_ops.live_rows  # noqa: F401 - exported programs name its operators
from det_ops.__about__ import __version__
from det_ops.backends import kernels
from det_ops.box_coding import decode_boxes, encode_boxes
from det_ops.boxes import box_area, box_iou, clip_boxes, generalized_box_iou
from det_ops.convolution import Conv2d, conv2d
from det_ops.deform_conv import deform_conv2d
from det_ops.fast_nms import fast_nms
from det_ops.levels import fpn_levels
from det_ops.mask_targets import bitmap_targets, rasterize_polygons
from det_ops.matching import match
from det_ops.nms import batched_nms, nms
from det_ops.paste import paste_masks, paste_to_rle
from det_ops.rle import encode_rle
from det_ops.roi_align import multilevel_roi_align, roi_align
from det_ops.sampling import subsample
from det_ops.top_k import top_k

__all__ = [
    "Conv2d",
    "__version__",
    "batched_nms",
    "bitmap_targets",
    "box_area",
    "box_iou",
    "clip_boxes",
    "conv2d",
    "decode_boxes",
    "deform_conv2d",
    "encode_boxes",
    "encode_rle",
    "fast_nms",
    "fpn_levels",
    "generalized_box_iou",
    "kernels",
    "match",
    "multilevel_roi_align",
    "nms",
    "paste_masks",
    "paste_to_rle",
    "rasterize_polygons",
    "roi_align",
    "subsample",
    "top_k",
]
